"""Money: what a million inferences cost on rented or bought hardware, from dated prices that anyone can override."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.keys import KeySpec, key, specs
from hwsim.machine.reader import file_label, read_toml
from hwsim.machine.sections import Price
from hwsim.machine.values import Value, read_leaf

_JOULES_PER_KWH = 3.6e6
_HOURS_PER_YEAR = 8766.0  # 365.25 days


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a price list does not say: energy, cooling, how long hardware lives and how busy it is kept."""

    electricity: float = key("price of electricity", "energy_price", default=0.12, low=0, high=100)
    cooling: float = key("watts of cooling per watt of hardware", "ratio", default=0.3, low=0, high=10)
    life_years: float = key("years over which a purchase is written off", "ratio", default=3.0, low=0.01, high=100)
    utilization: float = key("share of the paid hours in which there is work", "ratio", default=1.0, low=1e-6, high=1)
    carbon_g_per_kwh: float | None = key(
        "grams of CO2 equivalent per kWh of electricity", "ratio", default=None, low=0, high=5000
    )


_DEFAULTS = {
    "electricity": ("0.12 USD/kWh", "assumed: a round figure near what US industry and commerce pay"),
    "cooling": (0.3, "assumed: a data hall that spends 0.3 W on cooling and supply for each watt of hardware"),
    "life_years": (3, "assumed: usual write-off of servers"),
    "utilization": (1, "assumed: the hardware always has work; less makes every inference dearer"),
}


@dataclass(frozen=True, slots=True)
class Dated:
    """One price of one chip or board: base units (USD/h or USD), its text, where it is from and when it was read."""

    value: float
    text: str
    source: str
    date: str

    def __str__(self) -> str:
        return f"{self.text} (read {self.date}; {self.source})"


def _default_assumptions() -> dict[str, Value]:
    return {name: _leaf(name, list(pair), "defaults") for name, pair in _DEFAULTS.items()}


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by machine that override those of machine files, and the assumptions a cost needs, each with its source."""

    rent: Mapping[str, Dated] = field(default_factory=dict)
    purchase: Mapping[str, Dated] = field(default_factory=dict)
    assumptions: Mapping[str, Value] = field(default_factory=_default_assumptions)

    def assumed(self, name: str) -> float:
        """Return the number of one assumption (a field of `Assumptions` that is set)."""
        return self.assumptions[name].number

    @property
    def carbon_g_per_kwh(self) -> float | None:
        """Grams of CO2 equivalent per kWh, None unless given."""
        return self.assumed("carbon_g_per_kwh") if "carbon_g_per_kwh" in self.assumptions else None

    def rent_of(self, acc: Accelerator) -> Dated | None:
        """Return the hourly price of one chip: the user's, of the machine or of its chip, or the machine file's."""
        return self._of(acc, self.rent, acc.price.hourly_usd, "price.hourly")

    def purchase_of(self, acc: Accelerator) -> Dated | None:
        """Return the purchase price of one chip or board: the user's or the machine file's."""
        return self._of(acc, self.purchase, acc.price.purchase_usd, "price.purchase")

    def _of(self, acc: Accelerator, given: Mapping[str, Dated], listed: float | None, path: str) -> Dated | None:
        for name in (acc.target, acc.id, acc.system.chip):
            if name and name in given:
                return given[name]
        if listed is None:
            return None
        entry = acc.values[path]
        return Dated(listed, entry.text, entry.source, acc.price.date)

    def with_assumption(self, name: str, text: str, source: str = "given by the user") -> Prices:
        """Return these prices with one assumption replaced, written as text (``"0.2 USD/kWh"``, ``"30%"``).

        Raises HwsimError for an unknown name or a value out of range.
        """
        try:
            value = _leaf(name, [text, source], "options")
        except HwsimError as error:
            raise HwsimError(f"{name.replace('_', '-')}: {error}") from None
        return replace(self, assumptions={**self.assumptions, name: value})

    def with_price(self, text: str, source: str = "given by the user") -> Prices:
        """Return these prices with one more, as ``tpu-v4=2.10 USD/h`` (rent) or ``coral-usb=59.99 USD`` (purchase).

        Raises HwsimError when the text is no machine and price.
        """
        name, eq, amount = (part.strip() for part in text.partition("="))
        if not (name and eq and amount):
            raise HwsimError(f"price {text!r}: write a machine and its price as tpu-v4=2.10USD/h or my-board=249USD")
        amount = re.sub(r"^\$\s*([\d.,_]+)", r"\1 USD", amount)
        rented = "/" in amount
        toml = "hourly" if rented else "purchase"
        try:
            value = read_leaf(specs(Price)[toml], [amount, source], f"price.{toml}", "options")
        except HwsimError as error:
            raise HwsimError(f"price of {name}: {error}") from None
        dated = Dated(value.number, amount, source, date.today().isoformat())
        if rented:
            return replace(self, rent={**self.rent, name: dated})
        return replace(self, purchase={**self.purchase, name: dated})

    def check_names(self, known: Iterable[str], compared: Iterable[Accelerator]) -> None:
        """Raise HwsimError for a price of a machine that is neither ``known`` nor ``compared``: it would do nothing."""
        names = {*known, *(n for acc in compared for n in (acc.target, acc.id, acc.system.chip) if n)}
        for name in (*self.rent, *self.purchase):
            if name not in names:
                raise HwsimError(f"price of {name}: no such machine{near(name, names)}")


def _leaf(name: str, pair: list[object], where: str) -> Value:
    table = specs(Assumptions)
    spec: KeySpec | None = table.get(name)
    if spec is None:
        raise HwsimError(f"no assumption {name!r}{near(name, table)}")
    return read_leaf(spec, pair, name, where)


def load_prices(path: str | Path) -> Prices:
    """Return the prices in a TOML file; what it leaves out keeps its default.

    ``[assumptions]`` holds fields of `Assumptions`, ``[price.<machine>]`` the keys ``hourly``, ``purchase`` (of one chip
    or board) and ``date``, required with a price; every number is a pair of quantity and source, as in machine files.
    Raises HwsimError naming the first entry that is wrong.
    """
    file = Path(path)
    if not file.is_file():
        raise HwsimError(f"no price file {str(path)!r}")
    table, label = read_toml(file), file_label(file)
    unknown = [name for name in table if name not in ("assumptions", "price")]
    if unknown:
        raise HwsimError(f"{label}: {unknown[0][:60]}: no such table; [assumptions] and [price.<machine>] are read")
    assumptions = _default_assumptions()
    rent: dict[str, Dated] = {}
    purchase: dict[str, Dated] = {}
    for name, pair in _table(table.get("assumptions", {}), f"{label}: assumptions").items():
        assumptions[name] = _read(specs(Assumptions).get(name), pair, f"assumptions.{name[:60]}", label)
    for machine, raw in _table(table.get("price", {}), f"{label}: price").items():
        at = f"{label}: price.{machine[:60]}"
        entry = dict(_table(raw, at))
        when = entry.pop("date", None)
        if isinstance(when, list) and when:
            when = when[0]
        when = when.isoformat() if isinstance(when, date) else when
        if not isinstance(when, str) or not when.strip() or len(when) > 100 or not when.isprintable():
            raise HwsimError(f'{at}: date is missing: say when the price was read, as date = "2026-11-01"')
        for name, pair in entry.items():
            if name not in ("hourly", "purchase"):
                raise HwsimError(f"{at}: no such key {name[:60]!r}; hourly, purchase and date are read")
            value = _read(specs(Price)[name], pair, f"price.{machine[:60]}.{name}", label)
            dated = Dated(value.number, value.text, value.source, when)
            (rent if name == "hourly" else purchase)[machine] = dated
    return Prices(rent, purchase, assumptions)


def _table(raw: object, at: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise HwsimError(f"{at}: must be a table")
    return raw


def _read(spec: KeySpec | None, pair: object, at: str, file: str) -> Value:
    try:
        if spec is None:
            raise HwsimError(f"no such key; {', '.join(specs(Assumptions))} are read")
        return read_leaf(spec, pair, at, file)
    except HwsimError as error:
        raise HwsimError(f"{file}: {at}: {error}") from None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a million inferences cost, US dollars; None where no price is known.

    ``busy`` is the share of the paid time in which the ``units`` compute. ``buy`` is hardware plus electricity; the rent
    includes electricity. ``electricity`` counts cooling and the power of waiting hardware.
    """

    units: int
    busy: float
    rent: float | None
    hardware: float | None
    electricity: float
    buy: float | None
    carbon_g: float | None

    @property
    def least(self) -> float | None:
        """The cheaper of renting and buying, None when neither price is known."""
        return min((c for c in (self.rent, self.buy) if c is not None), default=None)

    @property
    def basis(self) -> str:
        """Which of the two `least` is: ``rent``, ``buy`` or ``""``."""
        if self.least is None:
            return ""
        return "rent" if self.least == self.rent else "buy"


def units_for(rate_per_s: float | None, throughput_per_s: float) -> int:
    """Return how many machines of ``throughput_per_s`` carry ``rate_per_s``; one when no rate is asked."""
    return 1 if rate_per_s is None else max(1, math.ceil(rate_per_s / throughput_per_s))


def cost_of(
    prices: Prices,
    acc: Accelerator,
    *,
    throughput_per_s: float,
    energy_per_inference_j: float,
    idle_w: float,
    rate_per_s: float | None = None,
) -> Cost:
    """Return what a million inferences cost on as many of ``acc`` as ``rate_per_s`` needs.

    Without a rate one machine works at ``throughput_per_s``. Hardware is paid for every hour; ``utilization`` is the
    share of hours in which the rate is asked. ``idle_w`` is what one machine draws while it waits.
    """
    units = units_for(rate_per_s, throughput_per_s)
    asked_per_s = throughput_per_s if rate_per_s is None else rate_per_s
    busy = asked_per_s / (units * throughput_per_s)
    power_w = energy_per_inference_j * asked_per_s + idle_w * units * (1.0 - busy)
    return fleet_cost(
        prices, [(acc, units)], served_per_s=asked_per_s, power_w=power_w, idle_w=idle_w * units, busy=busy
    )


def fleet_cost(
    prices: Prices,
    fleet: Sequence[tuple[Accelerator, int]],
    *,
    served_per_s: float,
    power_w: float,
    idle_w: float,
    busy: float,
) -> Cost:
    """Return what a million of whatever is served (inferences, tokens) costs on a fleet of machines and their numbers.

    While there is work the fleet serves ``served_per_s`` (those in time, where an objective is to be met), draws
    ``power_w`` and computes for the share ``busy``; in the other hours (1 - ``utilization``) it draws ``idle_w``. Rent
    or purchase is None when the price of one of the machines is not known.
    """
    used = prices.assumed("utilization")
    paid_per_s = served_per_s * used
    average_w = power_w * used + idle_w * (1.0 - used)
    kwh = 1e6 * average_w / paid_per_s * (1.0 + prices.assumed("cooling")) / _JOULES_PER_KWH
    electricity = kwh * prices.assumed("electricity")
    hours = 1e6 / paid_per_s / 3600.0
    rents = [(prices.rent_of(acc), units * acc.chips) for acc, units in fleet]
    buys = [(prices.purchase_of(acc), units * acc.chips) for acc, units in fleet]
    life_hours = prices.assumed("life_years") * _HOURS_PER_YEAR
    rent, hardware = _total(rents, hours), _total(buys, hours / life_hours)
    carbon = prices.carbon_g_per_kwh
    return Cost(
        units=sum(units for _, units in fleet),
        busy=busy * used,
        rent=rent,
        hardware=hardware,
        electricity=electricity,
        buy=None if hardware is None else hardware + electricity,
        carbon_g=None if carbon is None else kwh * carbon,
    )


def _total(prices: Iterable[tuple[Dated | None, int]], times: float) -> float | None:
    """The sum of so many chips at their prices, None when one price is not known."""
    total = 0.0
    for price, chips in prices:
        if price is None:
            return None
        total += price.value * chips * times
    return total
