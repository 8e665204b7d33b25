"""Comparisons of numbers with columns of integers and doubles as SQL conditions. Pure.

A condition is TRUE exactly where the comparison holds, and FALSE or NULL elsewhere. Literals are exact:
each comparison becomes one with a number that the column's type holds.
"""

from dataclasses import dataclass
from decimal import Decimal

from shared.filters.intervals import integers_that_are
from shared.filters.sql_parameters import Parameters
from shared.filters.tree import Between, Comparison, In, Leaf, Number, Operator


@dataclass(frozen=True, slots=True)
class IntegerType:
    """An integer type of SQL with its smallest and largest value."""

    name: str
    low: int
    high: int


UBIGINT = IntegerType("UBIGINT", 0, 2**64 - 1)
BIGINT = IntegerType("BIGINT", -(2**63), 2**63 - 1)
HUGEINT = IntegerType("HUGEINT", -(2**127) + 1, 2**127 - 1)


class NumberColumn:
    """A column, or another expression, of numbers."""

    def __init__(self, expression: str, parameters: Parameters) -> None:
        self._expression = expression
        self._parameters = parameters

    def condition(self, leaf: Leaf) -> str:
        """Return the condition of =, IN, BETWEEN and the like; literals that are no numbers compare with nothing."""
        if isinstance(leaf, Comparison):
            return self.compare(leaf.operator, leaf.value.value) if isinstance(leaf.value, Number) else "FALSE"
        if isinstance(leaf, In):
            numbers = [value.value for value in leaf.values if isinstance(value, Number)]
            return self._is_in(numbers, negated=leaf.negated) if numbers else "FALSE"
        assert isinstance(leaf, Between), "the checks let no other operator pass"
        if not isinstance(leaf.low, Number) or not isinstance(leaf.high, Number):
            return "FALSE"
        low, high = leaf.low.value, leaf.high.value
        if leaf.negated:
            return f"({self.compare('<', low)} OR {self.compare('>', high)})"
        return f"({self.compare('>=', low)} AND {self.compare('<=', high)})"

    def compare(self, operation: Operator, number: Decimal) -> str:
        """Return the condition of a comparison with one number."""
        raise NotImplementedError

    def equal(self, number: Decimal) -> str | None:
        """Return what a value that equals the number is equal to, None if no value can be."""
        raise NotImplementedError

    def _is_in(self, numbers: list[Decimal], *, negated: bool) -> str:
        possible = [equal for number in numbers if (equal := self.equal(number)) is not None]
        if not possible:
            return f"{self._expression} IS NOT NULL" if negated else "FALSE"
        return f"{self._expression} {'NOT ' if negated else ''}IN ({', '.join(possible)})"


class IntegerColumn(NumberColumn):
    """Integers of one type."""

    def __init__(self, expression: str, kind: IntegerType, parameters: Parameters) -> None:
        super().__init__(expression, parameters)
        self._kind = kind

    def compare(self, operation: Operator, number: Decimal) -> str:
        """Return the condition of a comparison with one number."""
        if operation in {"=", "!="}:
            equal = self.equal(number)
            if equal is None:
                return "FALSE" if operation == "=" else f"{self._expression} IS NOT NULL"
            return f"{self._expression} {'=' if operation == '=' else '<>'} {equal}"
        wanted = integers_that_are(operation, number)
        if wanted.last is not None:
            return self._at_most(wanted.last)
        assert wanted.first is not None
        return self._at_least(wanted.first)

    def equal(self, number: Decimal) -> str | None:
        """Return the integer, None if it is none of the type."""
        if not self._kind.low <= number <= self._kind.high or number != int(number):
            return None
        return self._parameters.integer(int(number), self._kind.name)

    def _at_most(self, integer: int) -> str:
        if integer < self._kind.low:
            return "FALSE"
        if integer >= self._kind.high:
            return f"{self._expression} IS NOT NULL"
        return f"{self._expression} <= {self._parameters.integer(integer, self._kind.name)}"

    def _at_least(self, integer: int) -> str:
        if integer > self._kind.high:
            return "FALSE"
        if integer <= self._kind.low:
            return f"{self._expression} IS NOT NULL"
        return f"{self._expression} >= {self._parameters.integer(integer, self._kind.name)}"


class DoubleColumn(NumberColumn):
    """Doubles that each stand for the number that their shortest text says."""

    def compare(self, operation: Operator, number: Decimal) -> str:
        """Return the condition of a comparison with one number."""
        double = float(number)
        meant = shortest(double)
        if operation in {"=", "!="}:
            if meant != number:
                return "FALSE" if operation == "=" else f"{self._expression} IS NOT NULL"
            return f"{self._expression} {'=' if operation == '=' else '<>'} {self._parameters.double(double)}"
        # Of the values, only the one of this double lies between it and the number, if it does.
        included = {"<": meant < number, "<=": meant <= number, ">": meant > number, ">=": meant >= number}
        sign = f"{operation[0]}{'=' if included[operation] else ''}"
        return f"{self._expression} {sign} {self._parameters.double(double)}"

    def equal(self, number: Decimal) -> str | None:
        """Return the double, None if none stands for the number."""
        double = float(number)
        return self._parameters.double(double) if shortest(double) == number else None


def shortest(double: float) -> Decimal:
    """Return the number that the shortest text of a double says."""
    return Decimal(repr(double))
