"""Functions of a vector of float32 in registers, as polynomials and quotients of polynomials.

Errors are in units in the last place (ulp) against the exact result, the worst of a scan of 28
million floats over all exponents. They hold for results from 2**-119 on: below, a product may have
a denormal factor that has lost bits. NaN, infinities and zeros come out as the formulas say.
Coefficients, lowest power first, are minimax fits of the relative error (Lawson's algorithm on
Chebyshev points, in float64).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from mnnpy.backends.numba_cpu.ir import Function, Value

_LN2 = (0.6931471824645996, -1.9046543e-9)
"""Natural logarithm of 2 in two float32."""

_ROUNDING = 12582912.0
"""1.5 * 2**23: what is added to it is rounded to an integer, which the low bits then hold."""

_ROUNDING_BITS = 0x4B400000

_EXP = (0.499999934, 0.166665204, 0.0416683908, 0.00836874532, 0.00138145379)
"""(exp(r) - 1 - r) / r**2 up to half of ln 2; 3e-9 of exp(r)."""

_LOG = (
    *(0.333333317, -0.250008211, 0.200012267, -0.166233565),
    *(0.142017625, -0.131601951, 0.127615503, -0.0763442984),
)
"""(log(1 + f) - f + f**2 / 2) / f**3 from sqrt(1/2) to sqrt(2); 6e-9 of the logarithm."""

_LOG1P = (0.666664131, 0.400216992, 0.279991394, 0.280244657)
"""(2 atanh(s) - 2 s) / s**3 in s**2 up to s = 1/3; 5e-9 of atanh(s)."""

_ERF = (
    *(1.12837917, -0.37612635, 0.11283715, -0.0268605084),
    *(0.0052038591, -0.000817563868, 8.51310155e-5),
)
"""erf(x) / x in x**2 up to x = 0.9; 3e-10."""

_NORMAL_TAIL = (
    (0.500000003, 0.438295633, 0.183235659, 0.0406334067, 0.0041163371),
    (1.0, 1.67447625, 1.20250527, 0.46947201, 0.101859293, 0.0103180072),
)
"""exp(a**2 / 2) times the normal distribution beyond a, in a up to 14.5; 6e-9."""


_SIN = (1.0, -0.166666549, 0.00833217768, -0.000195172336)
"""sin(r) / r in r**2 up to pi / 4; 4e-9."""

_COS = (1.0, -0.5, 0.0416666469, -0.00138873669, 2.44383772e-5)
"""cos(r) in r**2 up to pi / 4; 1e-10."""

_HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
"""pi / 2 in two float64."""

_PER_HALF_PI = (
    *("0x1.45f306dp-1", "0x1.9391054p-30", "0x1.4fe13abp-59", "0x1.d1f534dp-88"),
    *("0x1.b81b6c5p-117", "0x1.5993c4p-148", "0x1.c820ff2p-175"),
)
"""2 / pi in pieces of 29 bits: their products with a float32 are exact in float64."""

_FAR = 2.0**30
"""Angles from which on two float64 of pi / 2 do not reduce them to float32."""


def exp(f: Function, x: Value) -> Value:
    """exp(x), to 1 ulp: denormal results too, 0 below them."""
    return exp_below(f, f.smaller(x, f.constant(89.0)))


def exp_below(f: Function, x: Value, low: Value | None = None) -> Value:
    """exp(x + low) for x up to 89, ``low`` being what x lacks: below one unit in its last place."""
    n, r = _reduced(f, f.larger(x, f.constant(-104.0)))
    if low is not None:
        r = f.arithmetic("fadd", r, low)
    power = f.arithmetic("fadd", _expm1_near_zero(f, r), f.constant(1.0))
    half = _integer(f, "ashr", n, 1)
    # In two steps: 2**n alone may be beyond the normal numbers.
    power = f.arithmetic("fmul", power, _power_of_two(f, half))
    return f.arithmetic("fmul", power, _power_of_two(f, _integer(f, "sub", n, half)))


def expm1_negative(f: Function, x: Value) -> Value:
    """exp(x) - 1 for x up to 0, to 1 ulp."""
    n, r = _reduced(f, f.larger(x, f.constant(-20.0)))
    power = _power_of_two(f, n)
    above = f.arithmetic("fsub", power, f.constant(1.0))
    return f.fma(power, _expm1_near_zero(f, r), above)


def log(f: Function, x: Value) -> Value:
    """Natural logarithm, to 0.9 ulp: of 0 minus infinity, of less NaN."""
    tiny = f.comparison("olt", x, f.constant(2.0**-126))
    normal = f.choose(tiny, f.arithmetic("fmul", x, f.constant(2.0**23)), x)
    bits = _as_integers(f, normal)
    # 0x3F3504F3 is sqrt(1/2): the mantissa comes to lie between that and sqrt(2).
    n = _integer(f, "ashr", _integer(f, "sub", bits, 0x3F3504F3), 23)
    mantissa = _as_floats(f, _integer(f, "sub", bits, _integer(f, "shl", n, 23)))
    y = f.arithmetic("fsub", mantissa, f.constant(1.0))
    exponent = f.emit(f"sitofp {_integers(f)} {n} to {f.vector}")
    exponent = f.arithmetic("fadd", exponent, f.choose(tiny, f.constant(-23.0), f.constant(0.0)))
    square = f.arithmetic("fmul", y, y)
    bent = f.fma(y, polynomial(f, y, _LOG), f.constant(-0.5))
    rest = f.fma(square, bent, f.arithmetic("fmul", exponent, f.constant(_LN2[1])))
    result = f.fma(exponent, f.constant(_LN2[0]), f.arithmetic("fadd", y, rest))
    infinite = f.comparison("oeq", x, f.constant(math.inf))
    result = f.choose(infinite, x, result)
    zero = f.comparison("oeq", x, f.constant(0.0))
    result = f.choose(zero, f.constant(-math.inf), result)
    return f.choose(f.comparison("oge", x, f.constant(0.0)), result, f.constant(math.nan))


def sigmoid(f: Function, x: Value, low: Value | None = None) -> Value:
    """1 / (1 + exp(-x)), to 2.3 ulp; ``low`` is what x lacks, as in ``exp_below``."""
    sign = f.comparison("oge", x, f.constant(0.0))
    if low is not None:
        low = f.choose(sign, negative(f, low), low)
    decay = exp_below(f, negative(f, f.intrinsic("fabs", x)), low)
    above = f.choose(sign, f.constant(1.0), decay)
    return f.arithmetic("fdiv", above, f.arithmetic("fadd", decay, f.constant(1.0)))


def tanh(f: Function, x: Value) -> Value:
    """Hyperbolic tangent, to 2.6 ulp: with q = exp(-2 |x|) - 1, -q / (q + 2) and the sign of x."""
    size = f.intrinsic("fabs", x)
    q = expm1_negative(f, f.arithmetic("fmul", size, f.constant(-2.0)))
    quotient = f.arithmetic("fdiv", q, f.arithmetic("fadd", q, f.constant(2.0)))
    return f.intrinsic("copysign", quotient, x)


def erf(f: Function, x: Value) -> Value:
    """The error function, to 2.4 ulp: near 0 a polynomial, else 1 less the normal tail."""
    near = f.arithmetic("fmul", x, polynomial(f, f.arithmetic("fmul", x, x), _ERF))
    size = f.smaller(f.intrinsic("fabs", x), f.constant(4.0))
    decay = exp_below(f, f.arithmetic("fmul", size, negative(f, size)))
    tail = _quotient(f, f.arithmetic("fmul", size, f.constant(math.sqrt(2))), _NORMAL_TAIL)
    far = f.fma(f.arithmetic("fmul", decay, f.constant(-2.0)), tail, f.constant(1.0))
    is_near = f.comparison("olt", size, f.constant(0.9))
    return f.choose(is_near, near, f.intrinsic("copysign", far, x))


def gelu(f: Function, x: Value) -> Value:
    """x times the normal distribution's cumulative function, to 5.4 ulp, small values too."""
    size = f.smaller(f.intrinsic("fabs", x), f.constant(14.5))
    half = f.constant(-0.5)
    square, lost = _product(f, size, size)
    decay = exp_below(f, f.arithmetic("fmul", square, half), f.arithmetic("fmul", lost, half))
    tail = _quotient(f, size, _NORMAL_TAIL)
    product = f.arithmetic("fmul", f.smaller(x, f.constant(14.5)), tail)
    beyond = f.arithmetic("fmul", decay, product)
    positive = f.comparison("ogt", x, f.constant(0.0))
    return f.choose(positive, f.arithmetic("fsub", x, beyond), beyond)


def gelu_by_tanh(f: Function, x: Value) -> Value:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2, to 3.4 ulp: x sigmoid(x (a + b x**2)).

    What rounding takes from the sigmoid's argument is carried along.
    """
    a, b = (1.59576917, -4.53406804e-8), (0.0713548139, 2.3988324e-9)
    near = f.larger(f.smaller(x, f.constant(11.0)), f.constant(-11.0))
    square, square_lost = _product(f, near, near)
    bent, bent_lost = _product(f, square, f.constant(b[0]))
    slope, slope_lost = _sum(f, bent, f.constant(a[0]))
    lost = f.arithmetic("fadd", slope_lost, f.constant(a[1]))
    lost = f.arithmetic("fadd", lost, bent_lost)
    lost = f.fma(square_lost, f.constant(b[0]), f.fma(square, f.constant(b[1]), lost))
    argument, low = _product(f, near, slope)
    return f.arithmetic("fmul", x, sigmoid(f, argument, f.fma(near, lost, low)))


def softplus(f: Function, x: Value) -> Value:
    """log(1 + exp(x)), to 3.5 ulp.

    It is max(x, 0) + log1p(exp(-|x|)), the logarithm as 2 atanh(t / (2 + t)).
    """
    t = exp_below(f, negative(f, f.intrinsic("fabs", x)))
    s = f.arithmetic("fdiv", t, f.arithmetic("fadd", t, f.constant(2.0)))
    square = f.arithmetic("fmul", s, s)
    bent = polynomial(f, square, (2.0, *_LOG1P))
    return f.fma(s, bent, f.larger(x, f.constant(0.0)))


def mish(f: Function, x: Value) -> Value:
    """x tanh(softplus(x)), to 4 ulp: with e = exp(x), x (e**2 + 2 e) / (e**2 + 2 e + 2)."""
    e = exp_below(f, f.smaller(x, f.constant(20.0)))
    above = f.arithmetic("fmul", e, f.arithmetic("fadd", e, f.constant(2.0)))
    below = f.arithmetic("fadd", above, f.constant(2.0))
    return f.arithmetic("fmul", x, f.arithmetic("fdiv", above, below))


def sin(f: Function, x: Value) -> Value:
    """Sine of angles of any size, to 2.1 ulp."""
    return _circular(f, x, 0)


def cos(f: Function, x: Value) -> Value:
    """Cosine of angles of any size, to 2.1 ulp."""
    return _circular(f, x, 1)


def negative(f: Function, x: Value) -> Value:
    return f.emit(f"fneg {f.vector} {x}")


def polynomial(f: Function, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule; coefficients from the lowest power up."""
    *rest, value = (f.constant(c) for c in coefficients)
    for coefficient in reversed(rest):
        value = f.fma(value, x, coefficient)
    return value


def _product(f: Function, a: Value, b: Value) -> tuple[Value, Value]:
    """The product, and exactly what its rounding lost."""
    product = f.arithmetic("fmul", a, b)
    return product, f.fma(a, b, negative(f, product))


def _sum(f: Function, a: Value, b: Value) -> tuple[Value, Value]:
    """The sum, and exactly what its rounding lost (Knuth)."""
    total = f.arithmetic("fadd", a, b)
    second = f.arithmetic("fsub", total, a)
    first = f.arithmetic("fsub", total, second)
    lost = (f.arithmetic("fsub", a, first), f.arithmetic("fsub", b, second))
    return total, f.arithmetic("fadd", *lost)


def _quotient(f: Function, x: Value, terms: tuple[Sequence[float], Sequence[float]]) -> Value:
    above, below = (polynomial(f, x, coefficients) for coefficients in terms)
    return f.arithmetic("fdiv", above, below)


def _reduced(f: Function, x: Value) -> tuple[Value, Value]:
    """(n, r) with x = n ln 2 + r: an integer, and at most half of ln 2."""
    shifted = f.fma(x, f.constant(1 / math.log(2)), f.constant(_ROUNDING))
    n = f.arithmetic("fsub", shifted, f.constant(_ROUNDING))
    r = f.fma(n, f.constant(-_LN2[0]), x)
    r = f.fma(n, f.constant(-_LN2[1]), r)
    return _integer(f, "sub", _as_integers(f, shifted), _ROUNDING_BITS), r


def _expm1_near_zero(f: Function, r: Value) -> Value:
    square = f.arithmetic("fmul", r, r)
    return f.fma(square, polynomial(f, r, _EXP), r)


def _power_of_two(f: Function, n: Value) -> Value:
    """2**n for n of normal numbers."""
    return _as_floats(f, _integer(f, "shl", _integer(f, "add", n, 127), 23))


def _circular(f: Function, x: Value, ahead: int) -> Value:
    """The sine of the angle, some quarter turns ahead."""
    quarters, r = _quarter_turns(f, x)
    quarters = _integer(f, "add", quarters, ahead)
    square = f.arithmetic("fmul", r, r)
    sine = f.arithmetic("fmul", r, polynomial(f, square, _SIN))
    cosine = polynomial(f, square, _COS)
    odd = f.emit(f"trunc {_integers(f)} {quarters} to <{f.lanes} x i1>")
    bits = _as_integers(f, f.choose(odd, cosine, sine))
    sign = _integer(f, "shl", _integer(f, "and", quarters, 2), 30)
    return _as_floats(f, _integer(f, "xor", bits, sign))


def _quarter_turns(f: Function, x: Value) -> tuple[Value, Value]:
    """(n, r) with x = n pi / 2 + r, n up to multiples of 4; in float64."""
    d = _Doubles(f)
    wide = f.emit(f"fpext {f.vector} {x} to {d.vector}")
    shifted = d.fma(wide, d.constant(1 / _HALF_PI[0]), d.constant(_Doubles.rounding))
    n = d.arithmetic("fsub", shifted, d.constant(_Doubles.rounding))
    r = d.fma(n, d.constant(-_HALF_PI[0]), wide)
    r = d.fma(n, d.constant(-_HALF_PI[1]), r)
    far = f.comparison("oge", f.intrinsic("fabs", x), f.constant(_FAR))
    lanes = f.emit(f"bitcast <{f.lanes} x i1> {far} to i{f.lanes}")
    some = f.emit(f"icmp ne i{f.lanes} {lanes}, 0")
    turns = f.emit(f"zext i1 {some} to i64")

    def fold(_: Value, *near: Value) -> list[Value]:
        return [d.choose(far, a, b) for a, b in zip(d.folded(wide), near, strict=True)]

    r, shifted = f.loop(turns, fold, [(d.vector, r), (d.vector, shifted)])
    bits = f.emit(f"bitcast {d.vector} {shifted} to <{f.lanes} x i64>")
    quarters = f.emit(f"trunc <{f.lanes} x i64> {bits} to {_integers(f)}")
    return quarters, f.emit(f"fptrunc {d.vector} {r} to {f.vector}")


class _Doubles:
    """Arithmetic on as many float64 as there are lanes."""

    rounding = 1.5 * 2.0**52

    def __init__(self, f: Function) -> None:
        self.f = f
        self.vector = f"<{f.lanes} x double>"

    def constant(self, number: float) -> Value:
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return "<" + ", ".join([f"double 0x{bits:016X}"] * self.f.lanes) + ">"

    def arithmetic(self, operation: str, a: Value, b: Value) -> Value:
        return self.f.emit(f"{operation} {self.vector} {a}, {b}")

    def intrinsic(self, name: str, *values: Value) -> Value:
        symbol, v = f"@llvm.{name}.v{self.f.lanes}f64", self.vector
        self.f.module.declare(f"{v} {symbol}({', '.join([v] * len(values))})")
        return self.f.emit(f"call {v} {symbol}({', '.join(f'{v} {x}' for x in values)})")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self.intrinsic("fma", a, b, c)

    def choose(self, mask: Value, a: Value, b: Value) -> Value:
        v = self.vector
        return self.f.emit(f"select <{self.f.lanes} x i1> {mask}, {v} {a}, {v} {b}")

    def folded(self, x: Value) -> list[Value]:
        """Remainder and, plus ``rounding``, quotient of an angle of any size by pi / 2.

        Payne and Hanek's way: every piece of 2 / pi gives an exact product, of which multiples of
        four quarter turns are dropped.
        """
        total = self.constant(0.0)
        for piece in _PER_HALF_PI:
            part = self.arithmetic("fmul", x, self.constant(float.fromhex(piece)))
            turns = self.intrinsic("rint", self.arithmetic("fmul", part, self.constant(0.25)))
            part = self.fma(turns, self.constant(-4.0), part)
            total = self.arithmetic("fadd", total, part)
        n = self.intrinsic("rint", total)
        rest = self.arithmetic("fsub", total, n)
        r = self.arithmetic("fmul", rest, self.constant(_HALF_PI[0]))
        return [r, self.arithmetic("fadd", n, self.constant(self.rounding))]


def _integers(f: Function) -> str:
    return f"<{f.lanes} x i32>"


def _as_integers(f: Function, x: Value) -> Value:
    """The bits of floats."""
    return f.emit(f"bitcast {f.vector} {x} to {_integers(f)}")


def _as_floats(f: Function, bits: Value) -> Value:
    return f.emit(f"bitcast {_integers(f)} {bits} to {f.vector}")


def _integer(f: Function, operation: str, a: Value, b: Value | int) -> Value:
    """An operation on vectors of 32-bit integers, the second one maybe a number."""
    if isinstance(b, int):
        b = "<" + ", ".join([f"i32 {b}"] * f.lanes) + ">"
    return f.emit(f"{operation} {_integers(f)} {a}, {b}")
