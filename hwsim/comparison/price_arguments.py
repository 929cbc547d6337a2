"""The options of prices and assumptions, the same for every command that counts money."""

from __future__ import annotations

import argparse

from hwsim.costs import Prices, load_prices

_ASSUMPTIONS = (
    ("electricity", "0.12USD/kWh", "price of electricity, for bought machines"),
    ("cooling", "30%%", "watts of cooling per watt of hardware"),
    ("life-years", "3", "years over which a purchase is written off"),
    ("utilization", "100%%", "share of the paid hours in which there is work"),
    ("carbon-g-per-kwh", "400", "CO2 of electricity; adds carbon to the answer"),
)


def add_price_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--prices``, ``--price`` and one option for every assumption."""
    parser.add_argument("--prices", metavar="FILE", help="a .toml file of prices and assumptions")
    parser.add_argument(
        "--price", action="append", default=[], metavar="TARGET=USD", help="tpu-v4=2.10USD/h is rent, =249USD purchase"
    )
    for name, example, what in _ASSUMPTIONS:
        parser.add_argument(f"--{name}", metavar=example.replace("%%", "%"), help=f"{what}, as {example}")


def prices_of(args: argparse.Namespace) -> Prices:
    """Return the prices these options give; raises HwsimError for a wrong one."""
    prices = load_prices(args.prices) if args.prices is not None else Prices()
    for price in args.price:
        prices = prices.with_price(price)
    for name, _, _ in _ASSUMPTIONS:
        given = getattr(args, name.replace("-", "_"))
        if given is not None:
            prices = prices.with_assumption(name.replace("-", "_"), given)
    return prices
