"""Draws and solves arithmetic problems: each has a question, the steps, the result, a check and a second problem.

All arithmetic is exact (integers, fractions, decimals), so the answers are correct and the same on every machine.
"""

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import gcd, isqrt, prod

from dice import Dice

Fields = dict[str, str | list[str]]


def table(names: list[str], rows: list[tuple]) -> str:
    """Return a Markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def money(amount: Fraction | int) -> str:
    """Return an amount with two decimals, rounded half up."""
    fraction = Fraction(amount)
    exact = Decimal(fraction.numerator) / Decimal(fraction.denominator)
    return str(exact.quantize(Decimal("0.01"), ROUND_HALF_UP))


def short(amount: Fraction | int) -> str:
    """Return a number with at most two decimals, without trailing zeros."""
    return money(amount).rstrip("0").rstrip(".")


def _discount_numbers(dice: Dice) -> dict[str, str]:
    price, percent = dice.between(8, 90) * 5, dice.pick([5, 10, 12, 15, 20, 25, 30, 35, 40])
    saving = Fraction(price * percent, 100)
    return {
        "price": str(price),
        "percent": str(percent),
        "rest": str(100 - percent),
        "saving": money(saving),
        "final": money(price - saving),
    }


def _discount(dice: Dice) -> Fields:
    n, m = _discount_numbers(dice), _discount_numbers(dice)
    thing, other = dice.shuffled(["coat", "desk lamp", "bicycle", "tent", "coffee machine", "camera", "pair of boots"])[
        :2
    ]
    return n | {
        "question": [
            f"A {thing} costs {n['price']} euros and is reduced by {n['percent']}%. What do I pay?",
            f"How much is a {thing} for {n['price']} euros with a discount of {n['percent']} percent?",
        ],
        "work": [
            f"One percent of {n['price']} is {n['price']} / 100 = {money(Fraction(int(n['price']), 100))}.",
            f"{n['percent']} percent are {n['percent']} times as much: {n['saving']} euros.",
            f"Take this from the old price: {n['price']} - {n['saving']} = {n['final']}.",
        ],
        "result": f"you pay {n['final']} euros and save {n['saving']} euros.",
        "check": f"Check: {n['final']} is {n['rest']}% of {n['price']}, because {n['rest']}/100 × {n['price']} "
        f"= {n['final']}.",
        "general": "A percentage is a fraction with the denominator 100, so taking off p percent means "
        "multiplying by (100 - p) / 100.",
        "again": f"A {other} costs {m['price']} euros, less {m['percent']}%. What is the new price?",
        "again_result": f"{m['percent']}% of {m['price']} are {m['saving']} euros, so the new price is {m['final']} euros.",
        "use": "Two discounts in a row are not added: 20% and then 10% make 28% and not 30%, because the "
        "second is taken from less.",
    }


def _interest(dice: Dice) -> Fields:
    start, rate, years = dice.between(4, 40) * 250, dice.between(2, 7), dice.between(3, 5)
    values = [start * Fraction(100 + rate, 100) ** year for year in range(years + 1)]
    rows = [(year, money(value)) for year, value in enumerate(values)]
    more = start * Fraction(100 + rate, 100) ** (years + 5)
    return {
        "question": [
            f"I put {start} euros into an account at {rate}% interest a year. How much is it after {years} years?",
            f"What do {start} euros become in {years} years at {rate} percent compound interest?",
        ],
        "work": [
            f"Each year the balance is multiplied by {money(Fraction(100 + rate, 100))}.",
            f"After one year there are {money(values[1])} euros, after two years {money(values[2])} euros.",
            f"The whole table:\n\n{table(['Year', 'Balance'], rows)}\n",
        ],
        "result": f"after {years} years there are {money(values[-1])} euros, of which "
        f"{money(values[-1] - start)} are interest.",
        "check": f"Check with simple interest: {years} × {rate}% of {start} would be "
        f"{money(Fraction(start * rate * years, 100))}; "
        "with interest on interest it must be a bit more, and it is.",
        "general": "With a rate of p percent, a capital K grows to K × (1 + p/100)^n in n years.",
        "again": f"And how much is it after {years + 5} years?",
        "again_result": f"{start} × {money(Fraction(100 + rate, 100))}^{years + 5} = {money(more)} euros.",
        "use": f"A rule of thumb for savings and debts: money doubles in about 72 / {rate} = "
        f"{short(Fraction(72, rate))} years.",
    }


def _signed(number: int) -> str:
    return f"- {-number}" if number < 0 else f"+ {number}"


def _quadratic_numbers(dice: Dice) -> tuple[int, int, str]:
    low, gap = dice.between(-8, 6), dice.between(1, 9)
    high = low + gap if low + gap and low + low + gap else low + gap + 1
    if not low or not high or not low + high:
        return _quadratic_numbers(dice)
    coefficient = "- x" if low + high == 1 else "+ x" if low + high == -1 else f"{_signed(-(low + high))}x"
    return low, high, f"x² {coefficient} {_signed(low * high)} = 0"


def _quadratic(dice: Dice) -> Fields:
    low, high, equation = _quadratic_numbers(dice)
    low2, high2, equation2 = _quadratic_numbers(dice)
    p, q = -(low + high), low * high
    return {
        "question": [
            f"Solve {equation}.",
            f"What are the solutions of the equation {equation}?",
            f"How do I solve {equation} by factoring?",
        ],
        "work": [
            f"Look for two numbers with the sum {low + high} and the product {q}.",
            f"Those are {low} and {high}.",
            f"So the left side is (x {_signed(-low)})(x {_signed(-high)}).",
            "A product is zero only if one of its factors is.",
        ],
        "result": f"x = {low} or x = {high}.",
        "check": f"Check: for x = {low}, {low * low} {_signed(p * low)} {_signed(q)} = 0; for x = {high}, "
        f"{high * high} {_signed(p * high)} {_signed(q)} = 0.",
        "general": "For x² + px + q = 0 the solutions have the sum -p and the product q (Vieta); the formula "
        "is x = -p/2 ± √(p²/4 - q).",
        "again": f"Solve {equation2}.",
        "again_result": f"The numbers {low2} and {high2} fit, so x = {low2} or x = {high2}.",
        "use": "Braking distances, the flight of a ball and the most profitable price all lead to such equations.",
    }


TRIPLES = [(3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (9, 40, 41), (12, 35, 37)]


def _triangle(dice: Dice) -> Fields:
    (a, b, c), (a2, b2, c2) = dice.shuffled(TRIPLES)[:2]
    scale = dice.between(1, 4)
    a, b, c = a * scale, b * scale, c * scale
    return {
        "question": [
            f"A right triangle has legs of {a} cm and {b} cm. How long is the hypotenuse, and what is the area?",
            f"I walk {a} metres east and {b} metres north. How far am I from the start, in a straight line, "
            "and how large is the triangle?",
        ],
        "work": [
            f"By Pythagoras, c² = {a}² + {b}² = {a * a} + {b * b} = {c * c}.",
            f"So c = √{c * c} = {c}.",
            f"The area is half the product of the legs: {a} × {b} / 2 = {short(Fraction(a * b, 2))}.",
        ],
        "result": f"the long side is {c} and the area is {short(Fraction(a * b, 2))} (in the units of the question).",
        "check": f"Check: the longest side, {c}, must be less than {a} + {b} = {a + b} and more than {b}. It is.",
        "general": "In every right triangle the squares over the two legs together are as large as the square "
        "over the long side.",
        "again": f"The legs are {a2} and {b2}. And the hypotenuse?",
        "again_result": f"{a2 * a2} + {b2 * b2} = {c2 * c2} = {c2}², so it is {c2}.",
        "use": "Carpenters lay out right angles with a rope of 3, 4 and 5 units, and a phone computes "
        "distances on a map like this.",
    }


def _tank(dice: Dice) -> Fields:
    length, width, height = dice.between(4, 15) * 10, dice.between(3, 8) * 10, dice.between(3, 7) * 10
    rate = dice.pick([4, 5, 6, 8, 10, 12])
    litres = length * width * height // 1000
    return {
        "question": [
            f"An aquarium is {length} cm long, {width} cm wide and {height} cm high. How many litres fit in, "
            f"and how long does it take to fill at {rate} litres a minute?",
            f"A box-shaped tank measures {length} × {width} × {height} cm. What is its volume in litres, and "
            f"when is it full if {rate} litres flow in per minute?",
        ],
        "work": [
            f"Volume of a box: length × width × height = {length} × {width} × {height} = "
            f"{length * width * height} cm³.",
            f"A litre is 1,000 cm³, so that is {litres} litres.",
            f"Time: {litres} / {rate} = {short(Fraction(litres, rate))} minutes.",
        ],
        "result": f"it holds {litres} litres and is full after {short(Fraction(litres, rate))} minutes.",
        "check": f"Check: a height of 10 cm alone holds {length * width // 100} litres, and there are "
        f"{height // 10} such layers.",
        "general": "Volume is base area times height for every straight body; a cube of 10 cm is exactly one litre.",
        "again": f"How many litres are in it if the water stands {height // 2} cm high?",
        "again_result": f"{length} × {width} × {height // 2} / 1000 = "
        f"{short(Fraction(length * width * (height // 2), 1000))} litres.",
        "use": f"Water weighs a kilogram per litre, so you also know that the shelf must carry {litres} kg.",
    }


def _euclid(a: int, b: int) -> list[str]:
    return [f"{a} = {a // b} × {b} + {a % b}"] + (_euclid(b, a % b) if a % b else [])


def _gcd(dice: Dice) -> Fields:
    common, a, b = dice.between(3, 14), dice.between(5, 19), dice.between(20, 37)
    a, b = common * a, common * b
    divisor = gcd(a, b)
    c, d = dice.between(12, 60), dice.between(61, 99)
    return {
        "question": [
            f"What is the greatest common divisor of {b} and {a}?",
            f"How do I reduce the fraction {a}/{b}?",
            f"Find gcd({b}, {a}) with Euclid's algorithm.",
        ],
        "work": [f"Divide with remainder: {step}." for step in _euclid(b, a)]
        + [f"The last remainder that is not zero, or the last divisor, is {divisor}."],
        "result": f"gcd({b}, {a}) = {divisor}, and {a}/{b} = {a // divisor}/{b // divisor}.",
        "check": f"Check: {a} = {divisor} × {a // divisor} and {b} = {divisor} × {b // divisor}, and "
        f"{a // divisor} and {b // divisor} have no common divisor.",
        "general": "Whatever divides two numbers also divides the remainder, so the pair may be replaced by a "
        "smaller one until nothing remains.",
        "again": f"gcd({d}, {c}) = ?",
        "again_result": f"{'; '.join(_euclid(d, c))}. So it is {gcd(c, d)}.",
        "use": f"If you want to tile a floor of {a} × {b} cm with the largest possible square tiles, their "
        f"side is {divisor} cm.",
    }


def _prime_factors(number: int) -> list[int]:
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return [divisor, *_prime_factors(number // divisor)]
        divisor += 1
    return [number]


def _factors(dice: Dice) -> Fields:
    primes = [2, 2, 2, 3, 3, 5, 7, 11, 13]
    number, other = (prod(dice.shuffled(primes)[: dice.between(4, 5)]) for _ in range(2))
    parts, steps, rest = _prime_factors(number), [], number
    for part in parts[:-1]:
        steps.append(f"{rest} / {part} = {rest // part}")
        rest //= part
    powers = Counter(parts)
    divisors = prod(power + 1 for power in powers.values())
    written = " × ".join(f"{p}^{k}" if k > 1 else str(p) for p, k in powers.items())
    return {
        "question": [
            f"What is the prime factorisation of {number}?",
            f"Write {number} as a product of primes. How many divisors does it have?",
        ],
        "work": [f"Divide by the smallest prime that fits: {step}." for step in steps]
        + [f"{rest} is prime, so we are done."],
        "result": f"{number} = {written}, and it has {divisors} divisors.",
        "check": f"Check: {' × '.join(map(str, parts))} = {prod(parts)}.",
        "general": "The number of divisors is found by adding one to each exponent and multiplying: here "
        f"{' × '.join(str(k + 1) for k in powers.values())} = {divisors}.",
        "again": f"Factor {other}.",
        "again_result": f"{other} = {' × '.join(map(str, _prime_factors(other)))}.",
        "use": "Common denominators, gears that should wear evenly and the encryption of your bank rest on "
        "prime factors.",
    }


def _average(dice: Dice) -> Fields:
    values = [dice.between(2, 40) for _ in range(dice.pick([5, 7]))]
    ordered, total, count = sorted(values), sum(values), len(values)
    mean, median = Fraction(total, count), ordered[count // 2]
    shown = ", ".join(map(str, values))
    changed = total - ordered[-1] + 200
    return {
        "question": [
            f"What are the mean, the median and the range of {shown}?",
            f"My measurements are {shown}. What is the average, and what is the median?",
        ],
        "work": [
            f"Mean: the sum is {' + '.join(map(str, values))} = {total}; divided by {count} that is {short(mean)}.",
            f"Median: in order they are {', '.join(map(str, ordered))}, and the one in the middle is {median}.",
            f"Range: {ordered[-1]} - {ordered[0]} = {ordered[-1] - ordered[0]}.",
        ],
        "result": f"the mean is {short(mean)}, the median {median} and the range {ordered[-1] - ordered[0]}.",
        "check": f"Check: half of the other values, {count // 2}, stand on each side of {median}.",
        "general": "The mean shares the sum equally, the median is the middle one in order; a single extreme "
        "value moves the first and leaves the second.",
        "again": f"Replace the largest value, {ordered[-1]}, by 200. What happens to mean and median?",
        "again_result": f"The mean becomes {changed} / {count} = {short(Fraction(changed, count))}, the median stays {median}.",
        "use": "Incomes and house prices are better described by the median, since a few very large ones pull "
        "the mean up.",
    }


def _dice(dice: Dice) -> Fields:
    target, other = dice.between(3, 11), dice.between(2, 6)
    pairs = [(a, target - a) for a in range(1, 7) if 1 <= target - a <= 6]
    chance = Fraction(len(pairs), 36)
    never = Fraction(5, 6) ** other
    return {
        "question": [
            f"What is the probability of rolling a sum of {target} with two dice?",
            f"How likely is it that two fair dice show {target} together?",
        ],
        "work": [
            "Two dice have 6 × 6 = 36 outcomes, all equally likely.",
            f"The sum is {target} for {', '.join(map(str, pairs))}.",
            f"That is {len(pairs)} of 36.",
        ],
        "result": f"the probability is {len(pairs)}/36{f' = {chance}' if chance.denominator != 36 else ''}, "
        f"about {short(100 * chance)}%.",
        "check": "Check: the counts for 2 to 12 are 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, and they add up to 36.",
        "general": "If all outcomes are equally likely, probability is the number of favourable ones divided "
        "by the number of all.",
        "again": f"How likely is at least one six in {other} rolls of one die?",
        "again_result": f"No six at all has the probability (5/6)^{other} = {never}, so at least one has 1 - "
        f"{never} = {1 - never}, about {short(100 * (1 - never))}%.",
        "use": "Board games, insurance and weather forecasts count in the same way, only with larger tables.",
    }


def _trains(dice: Dice) -> Fields:
    fast, slow = dice.between(9, 14) * 10, dice.between(5, 8) * 10
    hours = dice.pick([Fraction(3, 2), Fraction(2), Fraction(5, 2), Fraction(3), Fraction(4)])
    distance = (fast + slow) * hours
    return {
        "question": [
            f"Two trains start {short(distance)} km apart and drive towards each other at {fast} and {slow} "
            "km/h. When do they meet, and where?",
            f"Anna and Ben live {short(distance)} km from each other and set out at the same time, she at "
            f"{fast} km/h, he at {slow} km/h. When do they meet?",
        ],
        "work": [
            f"Every hour the gap shrinks by {fast} + {slow} = {fast + slow} km.",
            f"So they need {short(distance)} / {fast + slow} = {short(hours)} hours.",
            f"The faster one has gone {fast} × {short(hours)} = {short(fast * hours)} km by then.",
        ],
        "result": f"they meet after {short(hours)} hours, {short(fast * hours)} km from where the faster one started.",
        "check": f"Check: the slower one has gone {short(slow * hours)} km, and {short(fast * hours)} + "
        f"{short(slow * hours)} = {short(distance)}.",
        "general": "Speeds that approach each other add up; speeds in the same direction are subtracted.",
        "again": f"The faster one follows the slower one, who is {(fast - slow) * 2} km ahead. When does it catch up?",
        "again_result": f"The gap shrinks by {fast - slow} km an hour, so after {(fast - slow) * 2} / {fast - slow} = 2 hours.",
        "use": "Air traffic control, and everyone who overtakes on a country road, solves this problem all day.",
    }


def _temperature(dice: Dice) -> Fields:
    celsius, fahrenheit = dice.between(-20, 42), dice.between(10, 100)
    converted = Fraction(celsius * 9, 5) + 32
    back = Fraction((fahrenheit - 32) * 5, 9)
    mile = dice.between(3, 26)
    return {
        "question": [
            f"What is {celsius} °C in Fahrenheit, and what is {fahrenheit} °F in Celsius?",
            f"Please convert {celsius} degrees Celsius to Fahrenheit, {fahrenheit} degrees Fahrenheit to "
            "Celsius, and explain the rule.",
        ],
        "work": [
            f"To Fahrenheit: multiply by 9/5 and add 32, so {celsius} × 9/5 + 32 = {short(converted)}.",
            f"To Celsius: subtract 32 and multiply by 5/9, so ({fahrenheit} - 32) × 5/9 = {short(back)}.",
        ],
        "result": f"{celsius} °C = {short(converted)} °F, and {fahrenheit} °F = {short(back)} °C.",
        "check": f"Check with the thumb rule, double and add 30: {celsius} becomes {2 * celsius + 30}, which "
        f"is near {short(converted)}.",
        "general": "Both scales are straight lines; water freezes at 0 °C or 32 °F and boils at 100 °C or 212 "
        "°F, so 100 degrees here are 180 there.",
        "again": f"And {mile} miles in kilometres (1 mile = 1.609 km)?",
        "again_result": f"{mile} × 1.609 = {short(Fraction(mile * 1609, 1000))} km.",
        "use": "It helps with American recipes, weather reports and fevers; at -40 the two scales agree.",
    }


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
HALF_YEAR = ["January", "February", "March", "April", "May", "June"]
MONTHS = [*HALF_YEAR, "July", "August", "September", "October", "November", "December"]


def _written(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _weekday(dice: Dice) -> Fields:
    start = date(2020, 1, 1) + timedelta(dice.below(1800))
    ahead, more = dice.between(40, 300), dice.between(50, 99)
    end = start + timedelta(ahead)
    return {
        "question": [
            f"{_written(start)} was a {DAYS[start.weekday()]}. Which day of the week is it {ahead} days later?",
            f"If {_written(start)} is a {DAYS[start.weekday()]}, what weekday and date do we have after {ahead} days?",
        ],
        "work": [
            "The days of the week repeat every 7 days, so only the remainder counts.",
            f"{ahead} = {ahead // 7} × 7 + {ahead % 7}.",
            f"{ahead % 7} days after a {DAYS[start.weekday()]} comes a {DAYS[end.weekday()]}.",
        ],
        "result": f"it is a {DAYS[end.weekday()]}, namely {_written(end)}.",
        "check": f"Check: {ahead - ahead % 7} days later it is a {DAYS[start.weekday()]} again, and then you "
        f"count {ahead % 7} further.",
        "general": "Counting modulo 7 is all there is to it; a normal year moves the weekday by one, a leap year by two.",
        "again": f"And {more} days after that?",
        "again_result": f"{more} leaves the remainder {more % 7}, so it is a "
        f"{DAYS[(end + timedelta(more)).weekday()]}, {_written(end + timedelta(more))}.",
        "use": "With the same trick you can tell your friends on which weekday they were born.",
    }


def _binary(dice: Dice) -> Fields:
    number, other = dice.between(37, 250), dice.between(37, 250)
    steps, rest = [], number
    while rest:
        steps.append(f"{rest} / 2 = {rest // 2}, remainder {rest % 2}")
        rest //= 2
    return {
        "question": [
            f"How do I write {number} in binary and in hexadecimal?",
            f"Please convert {number} to base 2 and base 16.",
        ],
        "work": [
            "Divide by two again and again and note the remainders:\n\n"
            + "\n".join(f"   - {step}" for step in steps)
            + "\n",
            f"Read them from the last to the first: {number:b}.",
            f"For base 16 take groups of four digits from the right: {number >> 4:b} and {number & 15:04b}, "
            f"which are {number >> 4:X} and {number & 15:X}.",
        ],
        "result": f"{number} is {number:b} in binary and {number:X} in hexadecimal.",
        "check": f"Check: {' + '.join(str(1 << place) for place in range(7, -1, -1) if number >> place & 1)} = "
        f"{number}.",
        "general": "In base b, each place is worth b times the one to its right; sixteen is two to the "
        "fourth, so four binary digits make one hexadecimal digit.",
        "again": f"What is {other:b} in decimal?",
        "again_result": f"{' + '.join(str(1 << place) for place in range(7, -1, -1) if other >> place & 1)} = {other}.",
        "use": "Colours on web pages, file permissions and network masks are all written this way.",
    }


NAMES = ["Ana", "Bo", "Chen", "Dora", "Eli", "Farah"]


def _sharing(dice: Dice) -> Fields:
    names = dice.shuffled(NAMES)[:3]
    paid = [dice.between(5, 40) * 3 for _ in names]
    total = sum(paid)
    share = total // 3
    rows = [(name, amount, amount - share) for name, amount in zip(names, paid, strict=True)]
    moves = [
        f"{name} {'gets' if rest > 0 else 'pays'} {abs(rest)} euro{'s' if abs(rest) > 1 else ''}"
        for name, _, rest in rows
        if rest
    ]
    settled = ", ".join(moves) or "nobody owes anything"
    return {
        "question": [
            f"{names[0]}, {names[1]} and {names[2]} went on a trip. They paid {paid[0]}, {paid[1]} and "
            f"{paid[2]} euros. How do they settle up?",
            f"Three friends share all costs. {names[0]} has spent {paid[0]} euros, {names[1]} {paid[1]} and "
            f"{names[2]} {paid[2]}. Who owes what?",
        ],
        "work": [
            f"Together they spent {paid[0]} + {paid[1]} + {paid[2]} = {total} euros.",
            f"Each share is {total} / 3 = {share} euros.",
            f"Compare that with what each has paid:\n\n{table(['Name', 'Paid', 'Balance'], rows)}\n",
        ],
        "result": f"{settled}.",
        "check": "Check: the balances add up to zero: "
        + " ".join(_signed(rest) for _, _, rest in rows).removeprefix("+ ")
        + " = 0.",
        "general": "Whoever paid more than the average gets the difference back, whoever paid less makes it up.",
        "again": f"{names[0]} pays another {share} euros for dinner for all three. What is everybody's share now?",
        "again_result": f"The sum is {total + share}, so each share is {total + share} / 3 = "
        f"{short(Fraction(total + share, 3))} euros.",
        "use": "Flat shares, holidays and club outings need nothing more than this table.",
    }


def _system(dice: Dice) -> Fields:
    x, y, a, b = dice.between(2, 9), dice.between(2, 9), dice.between(2, 5), dice.between(2, 5)
    count = dice.between(8, 25)
    apples = dice.between(3, count - 3)
    return {
        "question": [
            f"{a} coffees and one cake cost {a * x + y} euros, one coffee and {b} cakes cost {x + b * y} "
            "euros. What does each cost?",
            f"Solve the system: {a}x + y = {a * x + y} and x + {b}y = {x + b * y}. I think of x as coffees "
            "and y as cakes.",
        ],
        "work": [
            f"From the first equation, y = {a * x + y} - {a}x.",
            f"Put that into the second: x + {b}({a * x + y} - {a}x) = {x + b * y}.",
            f"So {b * (a * x + y)} - {a * b - 1}x = {x + b * y}, hence {a * b - 1}x = "
            f"{b * (a * x + y) - x - b * y} and x = {x}.",
            f"Then y = {a * x + y} - {a} × {x} = {y}.",
        ],
        "result": f"x = {x} and y = {y}: a coffee costs {x} euros and a cake {y} euros.",
        "check": f"Check: {a} × {x} + {y} = {a * x + y}, and {x} + {b} × {y} = {x + b * y}.",
        "general": "Two unknowns need two independent equations; express one unknown by the other and put it "
        "in, or add multiples of the equations so that one of them vanishes.",
        "again": f"There are {count} chickens and rabbits with {2 * apples + 4 * (count - apples)} legs. How "
        "many of each?",
        "again_result": f"If all were chickens there would be {2 * count} legs. The {2 * (count - apples)} "
        f"extra legs belong to {count - apples} rabbits, which leaves {apples} chickens.",
        "use": "Comparing two phone contracts or mixing two drinks is a system of this kind.",
    }


def _series(dice: Dice) -> Fields:
    first, step, count = dice.between(2, 12), dice.between(2, 9), dice.between(10, 30)
    last = first + step * (count - 1)
    total = count * (first + last) // 2
    square = isqrt(total)
    return {
        "question": [
            f"A theatre has {first} seats in the first row and {step} more in each row behind it. How many "
            f"seats are in {count} rows?",
            f"What is {first} + {first + step} + {first + 2 * step} + … with {count} terms?",
        ],
        "work": [
            f"The last term is {first} + {count - 1} × {step} = {last}.",
            f"First and last together are {first} + {last} = {first + last}, and so are the second and the "
            "last but one, and so on.",
            f"There are {count}/2 such pairs, so the sum is {count} × {first + last} / 2 = {total}.",
        ],
        "result": f"the sum is {total}.",
        "check": f"Check: the average term is {short(Fraction(first + last, 2))}, and {count} times that is {total}.",
        "general": "The sum of evenly spaced numbers is the number of terms times the mean of the first and "
        "the last; Gauss is said to have found it at school.",
        "again": f"What is the sum of the first {count} odd numbers?",
        "again_result": f"It is {count}² = {count * count}, because each odd number adds a border around the square before it.",
        "use": f"Savings plans and stacked pipes are counted so. (And {total} lies between {square}² = "
        f"{square * square} and {square + 1}² = {(square + 1) ** 2}, if you like such things.)",
    }


def _numbers(dice: Dice) -> Fields:
    """Return the numbers of a discount, for languages whose fragments have the sentences."""
    price, percent = dice.between(2, 15) * 100, dice.pick([5, 10, 12, 15, 20, 25, 30, 35, 40])
    saving = price * percent // 100
    numbers = {"price": price, "percent": percent, "rest": 100 - percent, "saving": saving, "final": price - saving}
    return {name: str(number) for name, number in numbers.items()}


PROBLEMS: dict[str, Callable[[Dice], Fields]] = {
    "discount": _discount,
    "interest": _interest,
    "quadratic": _quadratic,
    "triangle": _triangle,
    "tank": _tank,
    "gcd": _gcd,
    "factors": _factors,
    "average": _average,
    "dice": _dice,
    "trains": _trains,
    "temperature": _temperature,
    "weekday": _weekday,
    "binary": _binary,
    "sharing": _sharing,
    "system": _system,
    "series": _series,
    "numbers": _numbers,
}
