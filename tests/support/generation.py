"""Random entries of the catalog, derived from its models: new fields are drawn without a change here."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import reject
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ValidationError

from llmops.config.schema import INCONSISTENT

ModelT = TypeVar("ModelT", bound=BaseModel)
Place = tuple[str | int, ...]
Drawn = st.SearchStrategy[Any]

PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)
LABEL = r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?"
WORD = st.from_regex(LABEL, fullmatch=True)


def _gate(metric: str, rule: str, limit: float | str, dry: bool) -> dict[str, Any]:
    return {"metric": metric, rule: limit, "dry": dry}


BY_VALIDATOR: Mapping[str, Drawn] = {
    "_clock": st.from_regex("([01][0-9]|2[0-3]):[0-5][0-9]", fullmatch=True),
    "_cpu": st.sampled_from(["500m", "4", "1.5"]),
    "_hub_repository": st.tuples(WORD, WORD).map("/".join).filter(lambda name: "--" not in name),
    "_memory": st.sampled_from(["512Mi", "48Gi", "1T"]),
    "_cidr": st.sampled_from(["10.0.0.0/8", "192.168.7.0/24", "2001:db8::/32"]),
    "_cron": st.sampled_from(["0 3 * * *", "*/5 * * * 1-5"]),
    "_image": st.sampled_from(["vllm/vllm-openai", "ghcr.io/acme/engine"]),
    "_pinned": st.sampled_from(["ghcr.io/berriai/litellm:v1.1.0", f"litellm@sha256:{'1' * 64}"]),
    "image_repository": st.sampled_from(["vllm/vllm-openai", "ghcr.io/acme/engine", "ghcr.io/acme/weights"]),
    "_template": st.text(min_size=1, max_size=40),
    "_variable": WORD.map(lambda word: f"X_{word.replace('-', '_')}"),
    "one_argument": st.tuples(WORD, st.text(PRINTABLE, max_size=9)).map(
        lambda pair: f"--override-generation-config.{pair[0]}={pair[1]}"
    ),
    "_zone": st.sampled_from(["UTC", "Europe/Berlin"]),
}
"""Strategies for validators in code, by name: add new validators here."""
BY_FIELD: Mapping[str, Drawn] = {
    "engine.version": st.sampled_from(["0.32.0", ">=0.31,<0.40", "~=0.32"]),
    # Each has exactly one rule, on a suite that every entry has.
    "evaluation.gates": st.lists(
        st.builds(
            _gate,
            st.sampled_from(["all/score", "cost/usd_per_million_tokens"]),
            st.sampled_from(["min", "max", "max_drop", "max_ratio"]),
            st.floats(0.1, 9),
            st.booleans(),
        )
        | st.builds(
            _gate,
            st.just("all"),
            st.just("max_divergence"),
            st.floats(0, 1) | st.just("auto"),
            st.booleans(),
        ),
        max_size=3,
    ),
    "traffic.gates": st.lists(
        st.tuples(
            st.sampled_from(
                [
                    {"metric": "error_rate", "max_rise": 0.01},
                    {"metric": "abort_rate", "max": 0.1},
                    {"metric": "p95_ttft_ms", "max_ratio": 1.5},
                    {"metric": "p95_e2el_ms", "max": 9000.0},
                    {"metric": "waiting", "query": "sum(waiting{ {{ labels }} })", "max_ratio": 2.0},
                ]
            ),
            st.fixed_dictionaries({}, optional={"failure_limit": st.integers(0, 3), "dry": st.booleans()}),
        ).map(lambda parts: parts[0] | parts[1]),
        max_size=3,
    ),
    # A commit, because a pin names one.
    "weights.revision": st.sampled_from(["main", "v1", "0" * 40]),
}
"""Strategies for fields that only a whole model can check, by dotted path."""


def _with_image(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights with the strategy `image` if they name an image, else without."""
    strategy = {"strategy": "image"} if weights.get("image") else {}
    return {name: value for name, value in weights.items() if value != "image"} | strategy


TOGETHER: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"weights.": _with_image}
"""Functions that make fields consistent which rarely are by chance, by the dotted path before them."""


def instances(model: type[ModelT], given: Mapping[str, Drawn] | None = None) -> st.SearchStrategy[ModelT]:
    """Instances of a model: fields with a default are drawn or left out, and contradicting fields removed.

    Args:
        model: The model.
        given: Strategies of single fields, by their dotted path.
    """
    strategies = {**BY_FIELD, **(given or {})}

    return _content(model, "", strategies).map(lambda content: _agreeing(model, content))


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields, nested ones among them."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        for nested in _models(field.annotation):
            yield from fields(nested, f"{path}.")


def given_fields(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields that are set in an instance."""
    if isinstance(value, BaseModel):
        for name in value.model_fields_set:
            yield f"{prefix}{name}"
            yield from given_fields(getattr(value, name), f"{prefix}{name}.")
    elif isinstance(value, tuple):
        for item in cast(tuple[Any, ...], value):
            yield from given_fields(item, prefix)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _content(model: type[BaseModel], prefix: str, strategies: Mapping[str, Drawn]) -> st.SearchStrategy[dict[str, Any]]:
    needed: dict[str, Drawn] = {}
    further: dict[str, Drawn] = {}
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        drawn = strategies[path] if path in strategies else _value(field.annotation, field.metadata, path, strategies)
        (needed if field.is_required() else further)[name] = drawn
    drawn_fields = st.fixed_dictionaries(needed, optional=further)
    return drawn_fields.map(TOGETHER[prefix]) if prefix in TOGETHER else drawn_fields


def _value(annotation: Any, metadata: list[Any], path: str, strategies: Mapping[str, Drawn]) -> Drawn:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        own = [part for argument in inner[1:] for part in (*getattr(argument, "metadata", ()), argument)]
        return _value(inner[0], [*own, *metadata], path, strategies)
    if origin in (Union, types.UnionType):
        return st.one_of(*(_value(argument, metadata, path, strategies) for argument in inner))
    if annotation is type(None):
        return st.none()
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        least = _bound(metadata, MinLen, "min_length", 0)
        return st.lists(_value(inner[0], [], path, strategies), min_size=least, max_size=max(3, least))
    if origin is dict:
        key, value = (_value(argument, [], path, strategies) for argument in inner)
        return st.dictionaries(key, value, max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _content(annotation, f"{path}.", strategies)
    if validator := next((mark for mark in metadata if isinstance(mark, AfterValidator)), None):
        return BY_VALIDATOR[getattr(validator.func, "__name__", "")]
    return _scalar(annotation, metadata)


def _scalar(annotation: Any, metadata: list[Any]) -> Drawn:
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        least = _bound(metadata, Ge, "ge", _bound(metadata, Gt, "gt", -1) + 1)
        most = _bound(metadata, Le, "le", max(least, 10_000))
        return st.integers(least, most)
    if annotation is float:
        least, above = _bound(metadata, Ge, "ge", None), _bound(metadata, Gt, "gt", None)
        most, below = _bound(metadata, Le, "le", None), _bound(metadata, Lt, "lt", None)
        low, high = least if least is not None else above or 0, most if most is not None else below or 10_000
        return st.floats(low, high, exclude_min=above is not None, exclude_max=below is not None)
    assert annotation is str, annotation
    pattern = next((declared for mark in metadata if (declared := getattr(mark, "pattern", None))), None)
    longest = _bound(metadata, MaxLen, "max_length", 60)
    if pattern:
        return st.from_regex(pattern, fullmatch=True, alphabet=PRINTABLE).filter(lambda text: len(text) <= longest)
    return st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def _bound(metadata: list[Any], kind: type[Any], name: str, default: Any) -> Any:
    return next((getattr(mark, name) for mark in metadata if isinstance(mark, kind)), default)


def _agreeing(model: type[ModelT], content: dict[str, Any]) -> ModelT:
    """The instance without the fields that its model refuses as contradicting."""
    for _ in range(40):
        try:
            return model.model_validate(content)
        except ValidationError as error:
            if not all(
                _take_out(content, place) for item in error.errors(include_url=False) for place in _places(item)
            ):
                break
    return reject()


def _places(item: Any) -> list[Place]:
    """The fields of a validation error."""
    if item["type"] != INCONSISTENT:
        return [item["loc"]]
    return [(*item["loc"], *path) for path, _message in item["ctx"]["problems"]]


def _take_out(content: Any, place: Place) -> bool:
    """Remove the value at a place, or the nearest existing one around it; False if that is the whole content."""
    holder: Any = None
    part: Any = None
    for item in place:
        there = isinstance(content, dict) and item in content
        if not there and not (isinstance(content, list) and item in range(len(cast(list[Any], content)))):
            break
        holder, part, content = content, item, cast(Any, content)[item]
    if holder is None:
        return False
    del holder[part]
    return True
