"""Names of parts as data: cards on disk, plugins by entry point, and the way from a name to a part.

Neither torch nor dgl is imported here; a class is imported only when `load` is asked for it.
"""

from mer_zoo.registry.building import build, fill
from mer_zoo.registry.cards import FIELDS, Card, DeprecatedName, is_name, read_card, snake_case
from mer_zoo.registry.faults import raised
from mer_zoo.registry.kinds import KINDS, PROMISES, Kind, a, promise_faults, promised_by
from mer_zoo.registry.lookup import (
    card_faults,
    cards,
    code,
    find,
    load,
    names_class,
    plugin_faults,
    register,
    resume,
    session,
    split,
)
from mer_zoo.registry.plugins import ENTRY_POINT_GROUP
from mer_zoo.registry.resources import refresh, remembered
from mer_zoo.registry.signature import Setting, construct, facts, schema, settings, validate

__all__ = [
    "ENTRY_POINT_GROUP",
    "FIELDS",
    "KINDS",
    "PROMISES",
    "Card",
    "DeprecatedName",
    "Kind",
    "Setting",
    "a",
    "build",
    "card_faults",
    "cards",
    "code",
    "construct",
    "facts",
    "fill",
    "find",
    "is_name",
    "load",
    "names_class",
    "plugin_faults",
    "promise_faults",
    "promised_by",
    "raised",
    "read_card",
    "refresh",
    "register",
    "remembered",
    "resume",
    "schema",
    "session",
    "settings",
    "snake_case",
    "split",
    "validate",
]
