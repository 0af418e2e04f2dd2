"""The words of `wordmath`: names, things and phrasings, without any arithmetic.

Placeholders: {n} and {n2} people, {p} and {o} the first one's pronouns (he, him), {i} the things counted,
{x} a number of the story, {k} a number of groups with {m} in each. A phrase begins in lower case
where a connector ("Then", "Later") may come before it. Changing anything here changes the questions: raise
the version of the plugin with it. The embedded tokenizer has a token for each word that occurs here.
"""

from __future__ import annotations


def _each(text: str) -> list[str]:
    return text.split()


# (name, subject pronoun, object pronoun)
PEOPLE: list[tuple[str, str, str]] = [
    *((name, "he", "him") for name in _each("Tom Ben Sam Omar Luis Jack Leo Noah Ivan Raj Hugo Felix")),
    *((name, "he", "him") for name in _each("Oscar Pedro Adam Kofi Henry Marco Peter Yusuf Carl Dan")),
    *((name, "she", "her") for name in _each("Anna Mia Lily Emma Sara Nina Zoe Ruth Alice Maya Olga Clara")),
    *((name, "she", "her") for name in _each("Priya Julia Grace Ella Fatima Hana Rosa Wendy Ida Lucy")),
]

ITEMS = _each(
    "apples marbles stickers cards pencils shells coins buttons beads stamps cookies candies balloons toys books "
    "stones oranges flowers ribbons crayons postcards eggs cupcakes peaches acorns badges magnets bracelets"
)
GROUPS = _each("bags boxes packs baskets jars sets")
WHERE = ["in the garden", "under the bed", "at the beach", "in the attic", "on the way home", "in a drawer"]
CONNECTORS = ["Then ", "Later ", "After that ", "Next, ", "In the evening ", "", "", ""]

DISTRACTORS = [
    "{n} is {x} years old.",
    "The walk home takes {x} minutes.",
    "It is {x} degrees outside.",
    "{n} has {x} cousins.",
    "{n} lives on floor {x}.",
    "The story takes place in week {x} of the year.",
    "{n} woke up {x} minutes late.",
]

# ------------------------------------------------------------------ a quantity that changes
# Each theme: opening, gain, lose, group_gain, group_lose, half, times, ask.
Theme = dict[str, list[str]]

THINGS: Theme = {
    "opening": [
        "{n} has {x} {i}.",
        "{n} starts the day with {x} {i}.",
        "{n} keeps {x} {i} in a box.",
        "In the morning {n} counts {x} {i}.",
        "{n} owns a collection of {x} {i}.",
    ],
    "gain": [
        "{p} finds {x} more {where}.",
        "{p} buys {x} more.",
        "{n2} gives {o} {x} {i}.",
        "{p} gets {x} {i} from {n2}.",
        "{p} wins {x} {i} in a game.",
        "{p} collects another {x}.",
    ],
    "lose": [
        "{p} gives {x} to {n2}.",
        "{p} loses {x} of them.",
        "{p} sells {x} {i}.",
        "{p} trades {x} of them for a kite.",
        "{n2} borrows {x} {i}.",
        "{p} throws away {x} old ones.",
    ],
    "group_gain": ["{p} buys {k} {g} with {m} {i} in each.", "{p} gets {m} {i} from each of {k} friends."],
    "group_lose": ["{p} gives {m} {i} to each of {k} friends.", "{p} sells {k} {g} of {m} {i} each."],
    "half": ["{p} gives half of them to {n2}.", "{p} loses half of the {i}."],
    "times": ["{p} works hard and has {times} as many {i}.", "the collection grows to {times} its size."],
    "ask": [
        "How many {i} does {n} have now?",
        "How many {i} does {n} have in the end?",
        "What is the number of {i} that {n} has at last?",
        "How many {i} are there now?",
    ],
    "share": [
        "{p} shares them equally among {k} children. How many {i} does each child get?",
        "{p} puts them all into {k} equal piles. How many {i} are in each pile?",
    ],
}

MONEY: Theme = {
    "opening": [
        "{n} has {x} dollars.",
        "{n} has saved {x} dollars.",
        "There are {x} dollars in the wallet of {n}.",
        "{n} got {x} dollars as a birthday present.",
    ],
    "gain": [
        "{p} earns {x} dollars for {job}.",
        "{n2} pays back {x} dollars.",
        "{p} finds {x} dollars in an old coat.",
        "{p} gets {x} dollars from an aunt.",
    ],
    "lose": [
        "{p} spends {x} dollars on {thing}.",
        "{p} lends {n2} {x} dollars.",
        "{p} pays {x} dollars for {thing}.",
        "{p} loses {x} dollars.",
    ],
    "group_gain": [
        "{p} works {k} hours for {m} dollars an hour.",
        "{p} sells {k} {i} for {m} dollars each.",
    ],
    "group_lose": ["{p} buys {k} {i} for {m} dollars each.", "{p} pays {m} dollars to each of {k} helpers."],
    "half": ["{p} gives half of the money to {n2}.", "{p} puts half of the money in the bank."],
    "times": ["the money grows to {times} as much.", "{p} wins a bet and has {times} as much."],
    "ask": [
        "How much money does {n} have now?",
        "How many dollars does {n} have in the end?",
        "How many dollars are in the wallet now?",
    ],
    "share": ["{p} splits the money equally among {k} children. How many dollars does each child get?"],
}
JOBS = ["washing cars", "cutting grass", "walking dogs", "painting a fence", "baking bread", "fixing a bike"]
GOODS = ["a book", "a ticket", "lunch", "a new hat", "shoes", "a gift", "a lamp"]

TANK: Theme = {
    "opening": [
        "A {tank} holds {x} liters of water.",
        "There are {x} liters of water in a {tank}.",
        "{n} fills a {tank} with {x} liters of water.",
    ],
    "gain": ["{n} pours in {x} liters.", "the rain adds {x} liters.", "{x} more liters flow in."],
    "lose": [
        "{x} liters leak out.",
        "{n} uses {x} liters for the plants.",
        "the sun dries up {x} liters.",
        "the cows drink {x} liters.",
    ],
    "group_gain": ["{n} adds {k} buckets of {m} liters each.", "{m} liters flow in every hour for {k} hours."],
    "group_lose": ["{n} takes out {k} buckets of {m} liters each.", "{m} liters leak out every hour for {k} hours."],
    "half": ["{n} lets out half of the water.", "half of the water is used up."],
    "times": ["the water rises to {times} as much."],
    "ask": [
        "How many liters of water are in the {tank} now?",
        "How much water is there in the end?",
        "How many liters does the {tank} hold at last?",
    ],
    "share": ["the water is poured equally into {k} barrels. How many liters are in each barrel?"],
}
TANKS = _each("tank pool pond barrel well")

CROWD: Theme = {
    "opening": ["There are {x} {i} {place}.", "{n} counts {x} {i} {place}.", "At noon there are {x} {i} {place}."],
    "gain": ["{x} more {come}.", "another {x} {i} {come}.", "a group of {x} {i} {come}."],
    "lose": ["{x} of them {leave}.", "{x} {i} {leave}.", "a group of {x} {leave}."],
    "group_gain": ["{k} groups of {m} {i} {come}.", "every hour {m} more {come}, for {k} hours."],
    "group_lose": ["{k} groups of {m} {leave}.", "every hour {m} of them {leave}, for {k} hours."],
    "half": ["half of them {leave}."],
    "times": ["their number grows to {times} as many."],
    "ask": ["How many {i} are {place} now?", "How many {i} are there in the end?", "How many {i} does {n} see now?"],
    "share": ["they form {k} equal groups. How many {i} are in each group?"],
}
# (things, place, how they come, how they leave)
CROWDS: list[tuple[str, str, str, str]] = [
    ("birds", "in the tree", "land", "fly away"),
    ("people", "on the bus", "get on", "get off"),
    ("cars", "in the parking lot", "drive in", "drive off"),
    ("fish", "in the lake", "swim in", "are caught"),
    ("children", "in the park", "arrive", "go home"),
    ("ducks", "on the river", "swim over", "swim away"),
    ("guests", "at the party", "arrive", "leave"),
    ("sheep", "in the field", "walk in", "run away"),
    ("boats", "in the harbor", "sail in", "sail out"),
    ("bottles", "in the store", "are delivered", "are sold"),
    ("players", "on the court", "join", "stop"),
]

# ------------------------------------------------------------------ so much a day
# (does, do, things)
ACTIVITIES: list[tuple[str, str, str]] = [
    ("reads", "read", "pages"),
    ("walks", "walk", "miles"),
    ("bakes", "bake", "cakes"),
    ("plants", "plant", "trees"),
    ("writes", "write", "letters"),
    ("swims", "swim", "laps"),
    ("solves", "solve", "puzzles"),
    ("drives", "drive", "kilometers"),
    ("draws", "draw", "pictures"),
    ("picks", "pick", "plums"),
    ("folds", "fold", "shirts"),
    ("types", "type", "lines"),
]
PERIODS = ["day", "hour", "week"]
RATE_FIRST = ["{n} {does} {m} {t} per {u} for {k} {u}s.", "For {k} {u}s {n} {does} {m} {t} every {u}."]
RATE_SECOND = ["{p} then {does} {m} {t} per {u} for {k} more {u}s.", "The {k} {u}s after that it is {m} {t} per {u}."]
RATE_EXTRA = ["On the weekend {p} {does} {x} more {t}.", "At the end {p} {does} another {x} {t}."]
RATE_GOAL = ["The goal is {x} {t}.", "{n} wants to {do} {x} {t}.", "In all there are {x} {t} to {do}."]
RATE_ASK = ["How many {t} does {n} {do} in all?", "How many {t} does {n} {do} altogether?"]
RATE_LEFT = ["How many {t} are left to {do}?", "How many more {t} must {n} {do}?"]

# ------------------------------------------------------------------ packing
PACK_OPEN = ["A {shop} has {k} {g} with {m} {i} in each.", "{n} carries {k} {g} of {m} {i} each to the {shop}."]
PACK_MORE = ["Then {k} {g} with {m} {i} each are delivered.", "There are also {k} {g} with {m} {i} in each."]
PACK_LOSS = [
    "{x} of the {i} are broken and thrown away.",
    "The {shop} sells {x} {i}.",
    "{x} {i} fall out and are lost.",
]
PACK_LOOSE = ["A {shop} has {x} {i}.", "{n} brings {x} {i} to the {shop}."]
PACK_BAGS = [
    "They are packed into bags of {x}. How many bags are needed?",
    "All of them are put on plates, {x} on each plate. How many plates are used?",
]
PACK_ASK = ["How many {i} are there in all?", "How many {i} does the {shop} have?"]
SHOPS = _each("shop bakery market school kitchen museum")

# ------------------------------------------------------------------ comparing people
COMPARE_OPEN = ["{n} has {x} {i}.", "{n} collected {x} {i}."]
COMPARE = {
    "more": ["{n} has {x} more {i} than {n2}.", "{n} collected {x} more than {n2}."],
    "fewer": ["{n} has {x} fewer {i} than {n2}.", "{n} collected {x} fewer than {n2}."],
    "times": ["{n} has {times} as many {i} as {n2}.", "{n} collected {times} as many as {n2}."],
    "half": ["{n} has half as many {i} as {n2}."],
}
COMPARE_ASK = ["How many {i} does {n} have?", "What is the number of {i} of {n}?"]
COMPARE_SUM = ["How many {i} do {n} and {n2} have together?", "What do {n} and {n2} have in total?"]
COMPARE_ALL = ["How many {i} do the three of them have together?", "How many {i} do all three have in total?"]

AGE_OPEN = ["{n} is {x} years old.", "{n} has just turned {x}."]
AGE = {
    "more": ["{n} is {x} years older than {n2}.", "{n} was born {x} years before {n2}."],
    "fewer": ["{n} is {x} years younger than {n2}.", "{n} was born {x} years after {n2}."],
    "times": ["{n} is {times} as old as {n2}.", "The age of {n} is {times} the age of {n2}."],
    "half": ["{n} is half as old as {n2}."],
}
AGE_ASK = ["How old is {n}?", "What is the age of {n}?"]
AGE_LATER = ["How old will {n} be in {x} years?", "What will be the age of {n} {x} years from now?"]
AGE_SUM = ["How old are {n} and {n2} together?", "What is the sum of the ages of {n} and {n2}?"]
AGE_ALL = ["How old are all three of them together?", "What is the sum of the three ages?"]

# ------------------------------------------------------------------ buying
BUY_ONE = ["{n} buys {k} {i} for {m} dollars each.", "The {i} cost {m} dollars each. {n} takes {k} of them."]
BUY_TWO = ["{p} also buys {k} {i} at {m} dollars each.", "Then {p} takes {k} {i} that cost {m} dollars each."]
BUY_COUPON = ["{p} has a coupon for {x} dollars off.", "The seller lowers the bill by {x} dollars."]
BUY_FEE = ["The gift wrap costs {x} dollars more.", "{p} also pays {x} dollars for delivery."]
BUY_PAYS = ["{n} pays with {x} dollars. How much change does {p} get?", "How much is left of {x} dollars?"]
BUY_ASK = ["How much does {n} pay?", "How many dollars does {n} spend in all?", "What is the bill?"]

# ------------------------------------------------------------------ the start is unknown
BACK_OPEN = ["{n} has some {i}.", "{n} owns a number of {i}.", "Nobody knows how many {i} {n} had at first."]
BACK_NOW = ["Now {n} has {x} {i}.", "In the end {x} {i} are left.", "At last {n} counts {x} {i}."]
BACK_ASK = ["How many {i} did {n} have at first?", "With how many {i} did {n} start?"]

# ------------------------------------------------------------------ averages, seats, parts, recipes
AVERAGE_OPEN = ["{n} scored {xs} points in {k} games.", "In {k} tests {n} got {xs} points."]
AVERAGE_ASK = ["What is the average score?", "What is the mean of the scores?", "How many points is that on average?"]

SEATS_OPEN = ["There are {k} {v} with {m} seats each.", "{n} rents {k} {v}, each with {m} seats."]
SEATS_ONE = ["A hall has {x} seats.", "There are {x} seats in a theater."]
SEATS_TAKEN = ["{x} seats are taken.", "{x} people sit down."]
SEATS_GROUPS = ["{k} classes of {m} children take a seat.", "{k} teams with {m} people each sit down."]
SEATS_ASK = ["How many seats are empty?", "How many seats are still free?"]
VEHICLES = _each("buses vans boats wagons")

PART_OPEN = ["There are {x} {i} {place}.", "{n} counts {x} {i} {place}."]
PART = ["{part} of them are {color}.", "{part} of the {i} are {color}."]
PART_REST = ["{part} of the others are {color}.", "{part} of the rest are {color}."]
PART_ASK = ["How many {i} are {color}?", "What is the number of {color} {i}?"]
PART_NOT = ["How many {i} are not {color}?", "How many of the {i} are of another color?"]
PART_NEITHER = ["How many {i} are neither {color} nor {color2}?", "How many {i} have a third color?"]
PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
# (things, place)
COLORED: list[tuple[str, str]] = [
    ("cars", "in the parking lot"),
    ("boats", "in the harbor"),
    ("birds", "in the tree"),
    ("balloons", "in the hall"),
    ("flowers", "in the garden"),
    ("bottles", "in the store"),
    ("shirts", "in the shop"),
    ("kites", "in the park"),
    ("books", "in the library"),
]
COLORS = _each("red blue green white black brown")

# (dish singular, dish plural, ingredient)
DISHES: list[tuple[str, str, str]] = [
    ("cake", "cakes", "eggs"),
    ("pie", "pies", "apples"),
    ("salad", "salads", "tomatoes"),
    ("soup", "soups", "carrots"),
    ("necklace", "necklaces", "beads"),
    ("bench", "benches", "boards"),
    ("kite", "kites", "sticks"),
]
RECIPE_ONE = ["One {d} needs {m} {i}.", "It takes {m} {i} to make one {d}."]
RECIPE_MANY = ["{n} makes {k} {ds}.", "{n} wants to make {k} {ds}."]
RECIPE_HAS = ["{p} already has {x} {i}.", "{x} {i} are in the house already."]
RECIPE_BOX = ["In the shop a pack has {x} {i}.", "The shop sells {i} in packs of {x}."]
RECIPE_PRICE = ["Each pack costs {x} dollars.", "A pack costs {x} dollars."]
RECIPE_ASK = ["How many {i} are needed?", "How many {i} does {n} use?"]
RECIPE_BUY = ["How many more {i} must {n} buy?", "How many {i} are missing?"]
RECIPE_PACKS = ["How many packs must {n} buy?", "How many packs are missing?"]
RECIPE_COST = ["How much does {n} pay?", "What is the price of all the packs?"]
