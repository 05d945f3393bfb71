"""A simulated engine: vLLM's command line, HTTP API, metrics and ways to fail, without a GPU or a model.

`python -m llmops_sandbox.engine MODEL_FOLDER [flags of vllm serve]` loads a folder that `standins.weights` made (any
folder with config.json and safetensors will do) and serves it. The weights set its behaviour in the
folder's `simulation.json`, the image in variables of its environment; the image wins. A variable is `SIM_` and
the key in capitals, its value JSON or plain text (`SIM_TTFT_FACTOR=3`); `SIM_FAULTS` holds several at once as a JSON
object (`SIM_FAULTS={"crash_on_load": "CUDA error: device-side assert triggered"}`).

| key | default | what it does |
|---|---|---|
| version | "0.32.0" | what /version says; it has the flags of that vLLM, or of the last known one before it |
| removed_flags | [] | flags that this version does not know: it dies of them as argparse does, exit code 2 |
| added_flags | [] | flags without a value that it knows besides those of its version |
| load_seconds | null | time to load; null: the weights' bytes at load_mb_per_second |
| load_mb_per_second | 2000 | load speed |
| ttft_ms, ttft_jitter_ms | 30, 3 | time to first token, and how far it strays to either side |
| tokens_per_second | 120 | of one request |
| ttft_factor, tokens_factor | 1, 1 | multiply the two above: an image that is slower than another on the same weights |
| quality | 1.0 | the image's limit on the share of right answers; the prompts right at 0.8 are right at 0.9 |
| garbage | false | gibberish for every prompt |
| crash_on_load | null | RuntimeError with this text and a traceback, exit code 1 |
| oom_on_load | null | "gpu": torch.OutOfMemoryError, exit code 1; "host": SIGKILL, with a marker for the node agent |
| hang_on_load | false | never answers |
| completions | "ok" | "error": 500 to every completion while /health is 200; "hang": no answer at all |
| error_rate | 0.0 | this share of completions is answered with 500: 0.25 is every fourth |
| crash_after_requests | null | the process exits with 1 on the request after that many |
| die_after_seconds | null | the process exits with 1 that many seconds after it became ready |
| divergence | 0.0 | moves each token's log-probability, always alike, by this many nats in the mean, to either side |
| logprob_noise | 0.0 | the same, drawn anew for each request, as batches move it on a GPU |
| prompt_logprobs | true | false: a request for prompt_logprobs gets 400 |
| chat_template_tokens | 0 | tokens that its chat template puts in front of every chat prompt, and others do not |
| protocol_fault | null | one thing that it does wrong, from the table below |

| protocol_fault | what goes wrong |
|---|---|
| tool_calls_as_text | calls come as markup in the content |
| invalid_arguments | a call's arguments are not JSON: the last character is missing |
| wrong_argument_types | numbers in arguments are texts, texts are numbers |
| one_call_only | one call where several are due |
| ignores_tool_choice | every tool_choice is taken for "auto" |
| json_format_ignored | text in spite of a response_format |
| json_schema_ignored | an object that is not the schema's |
| stream_differs | a stream lacks the text of its third token |
| stream_without_usage | no usage, in spite of stream_options |
| stop_ignored, max_tokens_ignored, n_ignored | as their names say |
| logprobs_missing | null in place of log-probabilities |
| usage_wrong | seven completion tokens too many, which are not in the total |
| finish_reason_wrong | always "stop" |
| reasoning_in_content | the reasoning comes in <think> marks in the content |
| cuts_multibyte | a replacement character for every character that is not ASCII |
| errors_as_200 | errors of the client have status 200 |
| forgets_system, forgets_turns | the system prompt, or all turns but the last, go unread |

The model follows simple rules where it does not know the prompt: `model/instructions.py` says which requests it
understands, `model/tools.py` when it calls a tool, `model/schemas.py` how it fills arguments and JSON answers. With
`--reasoning-parser` it reasons before each answer, unless chat_template_kwargs has enable_thinking false; tools want
`--enable-auto-tool-choice` and `--tool-call-parser`, as in vLLM.

All simulated weights find the same tokens equally likely (`model/logprobs.py`), but for `divergence` and `garbage`.

It stops as vLLM does. On SIGTERM with `--shutdown-timeout 0`, the default, requests in flight end at once. With a
timeout above 0 they may finish; meanwhile /health stays 200 and new completions get 500. So an engine must get no new
requests before SIGTERM: `llmops_drain.Drain` waits for that. `--middleware` runs any ASGI class, as in vLLM.
"""
