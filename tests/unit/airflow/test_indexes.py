from __future__ import annotations

import re

import pytest
from airflow_steps.indexes import parse_symbols, symbol_option
from step_contract.errors import ConfigurationError


@pytest.mark.parametrize(
    ("symbols", "symbol", "expected"),
    [
        ("", "", ()),
        ("", "KQ11", ("KQ11",)),
        ("KS11", "", ("KS11",)),
        (" KS11 , KQ11", "", ("KS11", "KQ11")),
        ("KS11", "KS11", ("KS11",)),
    ],
)
def test_the_symbols_are_those_of_either_setting(symbols: str, symbol: str, expected: tuple[str, ...]) -> None:
    assert parse_symbols(symbols, symbol) == expected


@pytest.mark.parametrize(
    ("symbols", "symbol", "message"),
    [
        ("KS11,,KQ11", "", "one of them is empty"),
        ("KS11,", "", "one of them is empty"),
        ("KS11,KQ11,ks11", "", "ks11 is repeated"),
        ("KS11,../x", "", "invalid symbol '../x'"),
        ("KS11,KQ11", "KS11", "set only SYMBOLS"),
        (",".join(f"I{number}" for number in range(51)), "", "51 symbols; at most 50"),
    ],
)
def test_invalid_symbols_are_one_clear_sentence(symbols: str, symbol: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        parse_symbols(symbols, symbol)


def test_one_symbol_is_an_option_as_it_is_and_none_leaves_the_steps_default() -> None:
    assert symbol_option(("KQ11",)) == "KQ11" and symbol_option(()) is None
