"""What `headrace scale` changes: `key=value` words become a model's new scaling table. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from headrace_contracts.errors import InvalidSpec
from headrace_contracts.model import ModelSpec
from headrace_contracts.scaling import Scaling

SHORT_NAMES: Mapping[str, str] = {"min": "min_workers", "max": "max_workers", "buffer": "buffer_workers"}

_TYPES = {field.name: field.type for field in msgspec.structs.fields(Scaling) if field.type in (int, float)}


def parse_changes(arguments: Sequence[str]) -> dict[str, int | float]:
    """Keys of the scaling table and their new values.

    Raises:
        InvalidSpec: names the word, and what is possible.
    """
    changes: dict[str, int | float] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise InvalidSpec(f"{argument[:80]!r} is not key=value, as in `max=4`")
        name = SHORT_NAMES.get(key, key)
        if name == "schedule":
            raise InvalidSpec(
                "`schedule` cannot be set here, since each window has several values: "
                "change the model's file and add it again with `headrace models add`"
            )
        if name not in _TYPES:
            raise InvalidSpec(f"`{key[:80]}` is no setting of scaling; there are {', '.join((*SHORT_NAMES, *_TYPES))}")
        if name in changes:
            raise InvalidSpec(f"`{name}` is given twice: leave one out")
        changes[name] = _number(name, text)
    return changes


def with_changes(spec: ModelSpec, changes: Mapping[str, int | float]) -> ModelSpec:
    """The model with these settings of its scaling table.

    Raises:
        InvalidSpec: together with those it has, they are impossible.
    """
    try:
        # Not `replace`: that would not look whether the values go together.
        scaling = Scaling(**{**msgspec.structs.asdict(spec.scaling), **changes})
    except ValueError as error:
        raise InvalidSpec(f"{error}{_way_out(spec.scaling, changes)}; {spec.name} was left as it is") from error
    return msgspec.structs.replace(spec, scaling=scaling)


def setting_rows(before: Scaling, after: Scaling | None = None) -> list[tuple[str, ...]]:
    """Key and value of each setting; with `after`, key and both values of those that differ."""
    old, new = _shown(before), _shown(before if after is None else after)
    if after is None:
        return list(old.items())
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]


def _shown(scaling: Scaling) -> dict[str, str]:
    plain = {name: f"{getattr(scaling, name):g}" for name in _TYPES}
    return {**plain, "schedule": f"{len(scaling.schedule)} windows" if scaling.schedule else "none"}


def _number(name: str, text: str) -> int | float:
    kind = _TYPES[name]
    try:
        number: int | float = msgspec.convert(text.strip(), kind, strict=False)
    except msgspec.ValidationError as error:
        wanted = "a whole number, as in" if kind is int else "a number, as in 0.5 or"
        raise InvalidSpec(f"`{name}` is {text[:80]!r} and must be {wanted} 2") from error
    return number


def _way_out(scaling: Scaling, changes: Mapping[str, int | float]) -> str:
    """What to type instead, where two settings are at odds."""
    fewest = changes.get("min_workers", scaling.min_workers)
    most = changes.get("max_workers", scaling.max_workers)
    if fewest < 0 or most < 0 or fewest <= most:
        return ""
    if "min_workers" in changes and "max_workers" not in changes:
        return f" (`min={fewest} max={fewest}` sets both)"
    return f" (`min={most} max={most}` sets both)"
