"""Files from the hub: streamed, resumed at any byte, hashed while their bytes are in memory."""
