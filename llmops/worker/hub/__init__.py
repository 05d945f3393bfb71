"""Files from the hub: streamed, resumed at any byte, hashed in memory."""
