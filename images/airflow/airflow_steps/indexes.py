"""Several indexes in one run: the setting SYMBOLS, and the task group that is mapped over them.

An operator in a mapped task group is an ordinary one whose task instances have a map index. So it starts from the triggerer as
elsewhere, which renders its options for each index; a mapped operator would run in workers (docs/decisions/0022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk import task_group
from step_contract.errors import ConfigurationError
from step_contract.paths import validate_symbol

MAX_SYMBOLS = 50  # each index has a part of the run's message in Slack
GROUP_ID = "index"


def parse_symbols(symbols: str, symbol: str = "") -> tuple[str, ...]:
    """Return the symbols that the setting SYMBOLS lists, separated by commas, or that of SYMBOL, its name for a single one.

    Returns:
        The symbols in their order; none if neither is set: the steps have a default.

    Raises:
        ConfigurationError: one is empty, invalid or repeated, there are more than MAX_SYMBOLS, or both settings differ.
    """
    if not symbols.strip():
        return (validate_symbol(symbol),) if symbol else ()
    parsed = tuple(name.strip() for name in symbols.split(","))
    if symbol and parsed != (symbol,):
        raise ConfigurationError(f"SYMBOL is {symbol!r} and SYMBOLS is {symbols!r}: set only SYMBOLS")
    if "" in parsed:
        raise ConfigurationError(f"invalid SYMBOLS {symbols!r}: one of them is empty; separate symbols by one comma")
    for name in parsed:
        validate_symbol(name)
    # Files of the source may have names in lower case.
    repeated = [name for number, name in enumerate(parsed) if name.lower() in map(str.lower, parsed[:number])]
    if repeated:
        raise ConfigurationError(f"invalid SYMBOLS {symbols!r}: {repeated[0]} is repeated")
    if len(parsed) > MAX_SYMBOLS:
        raise ConfigurationError(f"invalid SYMBOLS: {len(parsed)} symbols; at most {MAX_SYMBOLS} are allowed")
    return parsed


def symbol_option(symbols: Sequence[str]) -> str | None:
    """Return the option `symbol` of a step in the group of `add_for_each_index`: a template if there are several symbols."""
    if len(symbols) > 1:
        return f"{{{{ {list(symbols)!r}[ti.map_index] }}}}"
    return symbols[0] if symbols else None


def add_for_each_index(symbols: Sequence[str], add_tasks: Callable[[], Any], tooltip: str) -> None:
    """Call `add_tasks`, which adds the tasks of one index to the DAG: in a task group that is mapped over several symbols.

    With one symbol there is no group, so that the DAG is the same as without the setting.
    """
    if len(symbols) < 2:
        add_tasks()
        return

    def add(symbol: Any) -> None:  # the group is mapped over its argument; the options have it from `symbol_option`
        add_tasks()

    # Workers name the map index so; task instances that the triggerer completes have the number only.
    names = {"map_index_template": symbol_option(symbols)}
    group = task_group(group_id=GROUP_ID, prefix_group_id=False, tooltip=tooltip, default_args=names)
    group(add).expand(symbol=list(symbols))
