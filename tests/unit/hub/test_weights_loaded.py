"""Which weights of a commit a release takes: those that vLLM loads from its folder, and all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.clients.hub import HubFile, Loading, documents_needed, require_config, select
from llmops.config.catalog.spec import DEFAULT_INCLUDE
from llmops.errors import BadRelease

GB = 10**9
INDEX = "model.safetensors.index.json"
MISTRAL_INDEX = "consolidated.safetensors.index.json"
MISTRAL = Loading(load_format="mistral")


def index(*files: str) -> Mapping[str, object]:
    return {"metadata": {"total_size": 1}, "weight_map": {f"layers.{n}": file for n, file in enumerate(files)}}


def taken(
    names: Collection[str],
    include: Sequence[str] = DEFAULT_INCLUDE,
    *,
    exclude: Sequence[str] = (),
    allow_pickle: bool = False,
    loading: Loading = Loading(),  # noqa: B008 - immutable
    documents: Mapping[str, object] | None = None,
) -> set[str]:
    files = [HubFile(name, 1, git_sha1="0" * 40) for name in names]
    chosen = select(files, include, exclude, allow_pickle, loading=loading, documents=documents or {})
    return {file.path for file in chosen}


def weights(paths: Collection[str]) -> set[str]:
    return {path for path in paths if path.endswith((".safetensors", ".bin", ".pt"))}


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
DUAL = ["config.json", "params.json", INDEX, *SHARDS, "consolidated.safetensors", "tekken.json"]


def test_weights_in_two_formats_are_taken_once() -> None:
    documents = {INDEX: index(*SHARDS)}
    assert weights(taken(DUAL, documents=documents)) == set(SHARDS)
    assert weights(taken(DUAL)) == set(SHARDS), "without the index's content as well"
    one = ["config.json", "params.json", "model.safetensors", "consolidated.safetensors"]
    assert weights(taken(one)) == {"model.safetensors"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--load-format=mistral"],
        ["--load-format=MISTRAL"],
        ["--config-format=mistral"],
        ["--load_format=mistral"],
        ["--load-form=mistral"],
        ["--load-format=safetensors", "--load-format=mistral"],
    ],
)
def test_mistrals_own_format_is_taken_where_an_argument_asks_for_it(arguments: Sequence[str]) -> None:
    loading = Loading.of(arguments)
    assert weights(taken(DUAL, loading=loading, documents={INDEX: index(*SHARDS)})) == {"consolidated.safetensors"}


def test_mistrals_own_format_is_taken_where_nothing_else_is() -> None:
    parts = [f"consolidated-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    names = ["params.json", "tekken.json", MISTRAL_INDEX, *parts]
    assert taken(names) == set(names)
    with pytest.raises(BadRelease, match=parts[1]) as refused:
        taken(set(names) - {parts[1]}, documents={MISTRAL_INDEX: index(*parts)})
    assert refused.value.code == "ShardsMissing"


def test_mistrals_own_format_has_to_be_there_if_it_is_asked_for() -> None:
    with pytest.raises(BadRelease) as refused:
        taken(["config.json", "model.safetensors"], loading=MISTRAL)
    assert refused.value.code == "WeightsNotSelected"
    assert "--load-format" in refused.value.remedy


@pytest.mark.parametrize("folder", ["original", "checkpoint-500", "fp16/deep", "metal"])
def test_another_copy_below_the_top_folder_is_left_out_with_its_folder(folder: str) -> None:
    top = {"config.json", INDEX, *SHARDS}
    copy = {f"{folder}/config.json", f"{folder}/model.safetensors", f"{folder}/consolidated.00.safetensors"}
    assert taken(top | copy, documents={INDEX: index(*SHARDS)}) == top


def test_small_files_of_folders_without_weights_stay() -> None:
    names = {"config.json", "model.safetensors", "1_Pooling/config.json", "additional_chat_templates/tool_use.jinja"}
    assert taken(names) == names


def test_a_pattern_with_a_folder_reaches_below() -> None:
    names = ["config.json", "model.safetensors", "vision-lora/adapter_model.safetensors", "old/model.safetensors"]
    chosen = taken([*names, "vision-lora/adapter_config.json"], (*DEFAULT_INCLUDE, "vision-lora/"))
    assert chosen == {*names[:3], "vision-lora/adapter_config.json"}


@pytest.mark.parametrize(
    ("pattern", "selects"),
    [
        ("/*.txt", {"a.txt"}),
        ("/x/*.txt", {"x/a.txt"}),
        ("/x/", {"x/a.txt", "x/y/a.txt"}),
        ("/*/a.*", {"x/a.txt"}),
        ("/x", set[str]()),
        ("*.txt", {"a.txt", "x/a.txt", "x/y/a.txt"}),
    ],
)
def test_a_pattern_from_the_top_does_not_cross_folders(pattern: str, selects: set[str]) -> None:
    names = ["a.txt", "x/a.txt", "x/y/a.txt", "model.safetensors"]
    assert taken(names, ("model.safetensors", pattern)) == {*selects, "model.safetensors"}


def test_folders_that_the_architecture_loads_are_taken() -> None:
    audio = {"config.json", "model.safetensors", "whisper-large-v3/config.json", "whisper-large-v3/model.safetensors"}
    kimi = {"config.json": {"architectures": ["MoonshotKimiaForCausalLM"]}}
    assert taken(audio, documents=kimi) == audio
    assert taken(audio, documents={"config.json": {"architectures": ["LlamaForCausalLM"]}}) == {
        "config.json",
        "model.safetensors",
    }
    diffusers = {"config.json", "transformer/d.safetensors", "vision_encoder/m.safetensors", "vae/d.safetensors"}
    cosmos = {"config.json": {"architectures": ["Cosmos3ForConditionalGeneration"]}}
    assert taken(diffusers, documents=cosmos) == diffusers - {"vae/d.safetensors"}


def test_dense_layers_of_sentence_transformers_are_taken() -> None:
    names = {"config.json", "modules.json", "model.safetensors", "2_Dense/config.json", "2_Dense/model.safetensors"}
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    assert taken(names, documents={"modules.json": modules}) == names
    assert taken(names, documents={"modules.json": {"modules": modules}}) == names
    everywhere = [{"path": "*", "type": "sentence_transformers.models.Dense"}]
    assert weights(taken(names, documents={"modules.json": everywhere})) == {"model.safetensors"}, "a path, no pattern"


@pytest.mark.parametrize("strange", [None, 3, "x", [3, {"path": 3, "type": []}], {"modules": "x"}, {"modules": [[]]}])
def test_strange_documents_raise_nothing(strange: object) -> None:
    names = ["config.json", "model.safetensors", "sub/model.safetensors", "a.py", "modules.json"]
    for name in ("config.json", "modules.json", "adapter_config.json"):
        chosen = taken(names, loading=Loading(remote_code=True), documents={name: strange})
        assert weights(chosen) == {"model.safetensors"}
    for architectures in (strange, [strange]):
        assert weights(taken(names, documents={"config.json": {"architectures": architectures}})) == {
            "model.safetensors"
        }


def test_only_what_the_index_lists_is_taken() -> None:
    names = {"config.json", INDEX, *SHARDS, "model.safetensors", "model.fp16.safetensors", "adapter_model.safetensors"}
    assert weights(taken(names, documents={INDEX: index(*SHARDS)})) == set(SHARDS)


@pytest.mark.parametrize(
    ("present", "lists"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "model-00000-of-00002.safetensors"),
        (["model.safetensors"], "model-00001-of-00002.safetensors"),
        (["model.safetensors"], "below/model.safetensors"),
        (["model.safetensors", "below/model.safetensors"], "below/model.safetensors"),
        (["model.safetensors"], "../model.safetensors"),
    ],
)
def test_what_the_index_lists_has_to_be_in_the_top_folder(present: Sequence[str], lists: str) -> None:
    with pytest.raises(BadRelease) as refused:
        taken(["config.json", INDEX, *present], documents={INDEX: index(*present[:1], lists)})
    assert (refused.value.code, refused.value.about) == ("ShardsMissing", lists)
    assert INDEX in refused.value.message


def test_an_index_that_is_left_out_does_not_count() -> None:
    names = ["config.json", INDEX, "model.safetensors"]
    assert taken(names, exclude=[INDEX], documents={INDEX: index("gone.safetensors")}) == {names[0], names[2]}


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 3}}, {"weight_map": "x"}, "x"],
)
def test_an_index_without_a_map_is_refused(content: object) -> None:
    with pytest.raises(BadRelease, match="weight_map") as refused:
        taken(["config.json", INDEX, *SHARDS], documents={INDEX: content})
    assert (refused.value.code, refused.value.about) == ("IndexMalformed", INDEX)


def numbered(numbers: Sequence[int], count: int, width: int = 5, of: int = 5, stem: str = "model") -> list[str]:
    return [f"{stem}-{number:0{width}d}-of-{count:0{of}d}.safetensors" for number in numbers]


@pytest.mark.parametrize(
    "names",
    [
        numbered(range(1, 4), 3),
        numbered(range(160), 160),
        numbered(range(3), 2),
        numbered(range(1, 164), 163, of=6),
        numbered(range(62), 61, 1, 1),
        numbered(range(1, 62), 61, 1, 1),
        [*numbered(range(1, 3), 2), *numbered(range(4), 4, stem="mtp")],
    ],
)
def test_complete_sets_without_an_index(names: Sequence[str]) -> None:
    assert weights(taken([*names, "config.json"])) == set(names)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (numbered(range(1, 163), 163, of=6), "model-00163-of-000163.safetensors"),
        (numbered(range(1, 61), 61, 1, 1), "model-61-of-61.safetensors"),
        (numbered([0, 1, 3], 4), "model-00002-of-00004.safetensors"),
        (numbered([0, 1], 3), "model-00002-of-00003.safetensors"),
        (numbered([1, 2], 999_999_999), "model-00003-of-999999999.safetensors"),
    ],
)
def test_incomplete_sets_without_an_index(names: Sequence[str], missing: str) -> None:
    with pytest.raises(BadRelease) as refused:
        taken([*names, "config.json"])
    assert (refused.value.code, refused.value.about) == ("ShardsMissing", missing)


@given(
    count=st.integers(1, 30),
    first=st.integers(0, 1),
    width=st.integers(1, 6),
    of=st.integers(1, 6),
    lost=st.sets(st.integers(0, 29)),
)
def test_a_set_without_an_index_is_taken_if_it_has_all(
    count: int, first: int, width: int, of: int, lost: set[int]
) -> None:
    numbers = [number for number in range(first, first + count) if number - first not in lost]
    names = ["config.json", *numbered(numbers, count, width, of)]
    complete = len(numbers) == count
    # What counts from 0 and lacks its first may count from 1: nobody can say without an index.
    if not numbers or (first == 0 and 0 not in numbers) or (count == 1 and first == 0):
        return
    if complete:
        assert weights(taken(names)) == set(names[1:])
    else:
        with pytest.raises(BadRelease, match="incomplete"):
            taken(names)


@given(
    present=st.sets(st.sampled_from([*SHARDS, "a.safetensors", "consolidated.safetensors", "x/b.safetensors"])),
    lists=st.lists(st.sampled_from([*SHARDS, "a.safetensors", "x/b.safetensors"]), min_size=1, max_size=3),
)
def test_with_an_index_exactly_its_files_are_taken_or_the_lack_is_told(present: set[str], lists: list[str]) -> None:
    names = {"config.json", INDEX, *present}
    top = {path for path in present if "/" not in path and not path.startswith("consolidated")}
    try:
        chosen = weights(taken(names, documents={INDEX: index(*lists)}))
    except BadRelease:
        assert not top or not set(lists) <= top
    else:
        assert chosen == (set(lists) if top else {"consolidated.safetensors"})


def test_tokenizers_of_every_library_are_taken() -> None:
    vocabularies = {
        "tiktoken.model",
        "spiece.model",
        "tokenizer.model",
        "sentencepiece.bpe.model",
        "tokenizer.model.v7",
        "mistral_instruct_tokenizer_240323.model.v3",
        "qwen.tiktoken",
        "tekken.json",
        "merges.txt",
        "vocab.txt",
        "bpe.codes",
        "chat_template.jinja",
    }
    names = {"config.json", "model.safetensors", *vocabularies}
    assert taken(names | {"original/tokenizer.model", "LICENSE.txt", "README.md", "modeling_x.py"}) == names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "configuration_x.XConfig"}}),
        ("config.json", {"vision_config": {"auto_map": {"AutoModel": "modeling_x.X"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "processing_x.X"}}),
    ],
)
def test_code_is_taken_where_the_engine_runs_it(name: str, content: object) -> None:
    names = {"config.json", "model.safetensors", "modeling_x.py", "processing_x.py", "eval/run.py"}
    code = {"modeling_x.py", "processing_x.py"}
    trusted = Loading.of(["--trust-remote-code"])
    assert taken(names, loading=trusted, documents={"config.json": {}, name: content}) == names - {"eval/run.py"}
    assert taken(names, loading=trusted, exclude=["*.py"], documents={name: content}) == names - code - {"eval/run.py"}
    assert taken(names, documents={name: content}) == names - code - {"eval/run.py"}, "not trusted"
    assert taken(names, loading=trusted, documents={"config.json": {"a": [1]}}) == names - code - {"eval/run.py"}


def test_pickles_beside_safetensors_and_states_of_a_training_are_left_out() -> None:
    names = ["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt", "sparse_linear.pt"]
    everything = {"include": ("*",), "allow_pickle": True}
    assert weights(taken(names, **everything)) == {"pytorch_model.bin", "sparse_linear.pt"}  # pyright: ignore[reportArgumentType]
    both = taken([*names, "model.safetensors"], **everything)  # pyright: ignore[reportArgumentType]
    assert weights(both) == {"model.safetensors", "sparse_linear.pt"}


@pytest.mark.parametrize("load_format", ["sharded_state", "tensorizer", "somebodys-plugin"])
def test_of_other_formats_the_patterns_decide(load_format: str) -> None:
    names = {"config.json", "model-rank-0-part-0.safetensors", "deep/consolidated.safetensors"}
    assert taken(names, loading=Loading(load_format=load_format)) == names


@pytest.mark.parametrize("weight", ["adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("further", [[], ["config.json"]])
def test_an_adapter_alone_is_told_as_one(weight: str, further: list[str]) -> None:
    names = ["adapter_config.json", weight, "tokenizer.json", "README.md", *further]
    files = [HubFile(name, 1) for name in names]
    assert [file.path for file in documents_needed(files, DEFAULT_INCLUDE)] == ["adapter_config.json"]
    documents = {"adapter_config.json": {"base_model_name_or_path": "acme/base-7b", "r": 16}}
    with pytest.raises(BadRelease, match="adapter of acme/base-7b") as refused:
        taken(names, documents=documents)
    assert (refused.value.code, refused.value.about) == ("AdapterAlone", weight)
    assert "Merge" in refused.value.remedy
    with pytest.raises(BadRelease, match="is an adapter and no model"):
        taken(names, ("*",), allow_pickle=True, documents={"adapter_config.json": {"base_model_name_or_path": 7}})


def test_an_adapter_beside_a_model_is_left_out() -> None:
    names = ["config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"]
    assert weights(taken(names)) == {"model.safetensors"}


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf", "README.md"], "GGUF"),
        (["M-IQ3.GGUF", "config.json"], "GGUF"),
        (["onnx/model_q4.onnx", "config.json"], "ONNX"),
        (["consolidated.00.pth", "params.json"], "PyTorch"),
        (["tf_model.h5", "config.json"], "TensorFlow"),
    ],
)
@pytest.mark.parametrize("include", [DEFAULT_INCLUDE, ("*",), ("*.gguf", "*.json", "*.h5")])
def test_other_formats_are_told_as_what_they_are(files: list[str], name: str, include: Sequence[str]) -> None:
    with pytest.raises(BadRelease, match=name) as refused:
        taken(files, include, allow_pickle=True)
    assert refused.value.code == "OtherFormat"
    assert "safetensors" in refused.value.remedy


def test_weights_below_the_top_folder_alone_are_told() -> None:
    with pytest.raises(BadRelease, match="only below its top folder") as refused:
        taken(["model_index.json", "unet/model.safetensors", "vae/model.safetensors"])
    assert (refused.value.code, refused.value.about) == ("WeightsBelowTop", "unet/model.safetensors")


def test_a_configuration_has_to_be_there() -> None:
    bare = [HubFile("model.safetensors", 1), HubFile("params.json", 1)]
    with pytest.raises(BadRelease) as refused:
        require_config(bare, Loading())
    assert refused.value.code == "ConfigMissing"
    require_config([*bare, HubFile("config.json", 1)], Loading())
    require_config([HubFile("consolidated.safetensors", 1), HubFile("params.json", 1)], Loading())
    require_config(bare, Loading.of(["--hf-config-path=/etc/config"]))
    require_config(bare, Loading.of(["--config-format=plugin"]))
    with pytest.raises(BadRelease):
        require_config(bare, Loading.of(["--hf-config-path=None"]))


def test_the_last_of_two_switches_decides_whether_code_runs() -> None:
    assert Loading.of(["--no-trust-remote-code", "--trust-remote-code"]).remote_code
    assert not Loading.of(["--trust-remote-code", "--no-trust-remote-code"]).remote_code


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 250 + ".json", None),
        ("x" * 251 + ".json", "too long"),
        ("ü" * 126 + ".json", "too long"),
        ("a/" * 2000 + "b.json", "too long"),
        ("model.safetensors/x.json", "both a file and the folder"),
        ("a\\b.json", "backslash"),
        ("a\x1b[2J.json", "control character"),
        ("\ud800.json", "not text"),
        ("../up.json", "leads out"),
    ],
)
def test_names_that_no_volume_can_hold_are_told_before_a_download(name: str, problem: str | None) -> None:
    names = ["config.json", "model.safetensors", name]
    if problem is None:
        assert taken(names) == set(names)
        return
    with pytest.raises(BadRelease, match=problem) as refused:
        taken(names)
    assert refused.value.code == "FileNameUnusable"
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400
    assert taken(names, exclude=["*[!g].json"]) == {"config.json", "model.safetensors"}


def test_no_document_is_read_for_a_model_in_one_file() -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json", "a.py"]
    assert documents_needed([HubFile(name, 1) for name in names], DEFAULT_INCLUDE) == ()


@pytest.mark.parametrize(
    ("names", "loading", "needed"),
    [
        (DUAL, Loading(), [INDEX]),
        ([*DUAL, MISTRAL_INDEX], MISTRAL, [MISTRAL_INDEX]),
        ([*DUAL, "original/m.safetensors", "modules.json"], Loading(), ["config.json", INDEX, "modules.json"]),
        (["config.json", "model.safetensors", "m.py"], Loading(remote_code=True), ["config.json"]),
        (["config.json", "x-of.safetensors", INDEX], Loading(load_format="tensorizer"), []),
    ],
)
def test_the_documents_that_decide_are_read(names: Sequence[str], loading: Loading, needed: list[str]) -> None:
    files = [HubFile(name, 1) for name in names]
    assert [file.path for file in documents_needed(files, DEFAULT_INCLUDE, loading=loading)] == needed


@pytest.mark.timeout(60)
def test_a_listing_of_thousands_of_folders_takes_no_square_of_time() -> None:
    count = 20_000
    copies = [f"{number}/{name}" for number in range(count) for name in ("model.safetensors", "x.json")]
    dense = [{"type": "sentence_transformers.models.Dense", "path": str(number)} for number in range(0, count, 2)]
    chosen = taken(["config.json", "model.safetensors", *copies], documents={"modules.json": dense})
    assert len(chosen) == 2 + count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([*SHARDS, "a.b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["weight_map", "architectures", "auto_map", "modules", "type", "path", "x"]), inner
        )
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *DUAL,
        *(
            "model-0-of-0.safetensors",
            "model-9-of-3.safetensors",
            "model-00001-of-99999.bin",
            "x.gguf",
            "a.py",
            "a.pth",
        ),
        *("modules.json", "adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin", "training_args.bin"),
        *("sub/model.safetensors", "sub", "sub/config.json", "2_Dense/model.safetensors", "", "/", "..", "\ud800"),
    ]
)


@given(
    names=st.lists(NAMES, max_size=12),
    documents=st.dictionaries(st.sampled_from([INDEX, MISTRAL_INDEX, "config.json", "modules.json"]), JSON),
    include=st.sampled_from([DEFAULT_INCLUDE, ("*",), ("/*", "sub/"), ("sub/*",)]),
    load_format=st.sampled_from(["auto", "hf", "mistral", "pt", "plugin"]),
    allow_pickle=st.booleans(),
    remote_code=st.booleans(),
)
def test_any_listing_is_taken_or_refused_in_words(
    names: list[str],
    documents: Mapping[str, object],
    include: Sequence[str],
    load_format: str,
    allow_pickle: bool,
    remote_code: bool,
) -> None:
    loading = Loading(load_format=load_format, remote_code=remote_code)
    documents_needed([HubFile(name, 1) for name in names], include, loading=loading)
    refusal: BadRelease | None = None
    chosen: set[str] = set()
    try:
        chosen = taken(names, include, allow_pickle=allow_pickle, loading=loading, documents=documents)
    except BadRelease as error:
        refusal = error
    if refusal:
        assert refusal.message.encode()
        assert refusal.remedy
        assert len(refusal.message) < 1000
    else:
        assert chosen <= set(names)
        assert allow_pickle or not any(path.endswith((".bin", ".pt", ".pth")) for path in chosen)
