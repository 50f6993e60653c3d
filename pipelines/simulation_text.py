"""What simulated people write: sentences about dishes, service, price and taste that say what the stars mean."""

import numpy as np

DISHES = {
    "Italian": ("carbonara", "margherita pizza", "lasagna", "mushroom risotto", "tiramisu", "gnocchi", "osso buco"),
    "Mexican": ("tacos al pastor", "burrito", "enchiladas", "guacamole", "quesadilla", "mole poblano", "churros"),
    "Indian": ("butter chicken", "biryani", "paneer tikka", "garlic naan", "masala dosa", "dal makhani", "samosas"),
    "Chinese": ("dim sum", "mapo tofu", "peking duck", "fried rice", "hot pot", "spring rolls", "kung pao chicken"),
    "Japanese": ("sushi platter", "tonkotsu ramen", "tempura", "sashimi", "udon", "gyoza", "chicken katsu"),
    "Thai": ("pad thai", "green curry", "tom yum", "papaya salad", "massaman curry", "satay", "mango sticky rice"),
    "American": ("cheeseburger", "smoked brisket", "fried chicken", "pancakes", "ribs", "mac and cheese", "apple pie"),
    "Mediterranean": ("falafel", "hummus", "lamb kebab", "moussaka", "tabbouleh", "grilled octopus", "baklava"),
    "French": ("steak frites", "onion soup", "duck confit", "crepes", "bouillabaisse", "ratatouille", "creme brulee"),
    "Korean": ("bibimbap", "bulgogi", "kimchi stew", "fried chicken wings", "japchae", "tteokbokki", "pork belly"),
}

# By stars 1 to 5. {dish} and {cuisine} are filled in.
FOOD = {
    1: (
        "The {dish} was inedible.",
        "My {dish} came cold and tasted stale.",
        "We sent the {dish} back, it was raw inside.",
        "Worst {dish} I have ever had.",
        "The {dish} made me sick.",
    ),
    2: (
        "The {dish} was bland and greasy.",
        "Sadly the {dish} was overcooked.",
        "The {dish} looked better than it tasted.",
        "I could not finish the dry {dish}.",
    ),
    3: (
        "The {dish} was okay, nothing more.",
        "The {dish} was decent but forgettable.",
        "Average {dish}, I have had better.",
        "The {dish} was fine, if a little salty.",
    ),
    4: (
        "The {dish} was really good.",
        "I enjoyed the {dish} a lot.",
        "Tasty {dish} and a generous portion.",
        "Very nice {dish}, well seasoned.",
    ),
    5: (
        "The {dish} was outstanding.",
        "Best {dish} in town, hands down.",
        "I am still dreaming of the {dish}.",
        "Perfect {dish}, fresh and full of flavor.",
        "The {dish} was absolutely delicious.",
    ),
}
SERVICE_GOOD = (
    "The staff were kind and quick.",
    "Our waiter was attentive and knew the menu.",
    "Friendly service from start to finish.",
    "They seated us right away and checked on us often.",
)
SERVICE_POOR = (
    "We waited forty minutes for our food.",
    "The waiter was rude.",
    "Service was slow and careless.",
    "They got our order wrong twice.",
)
PRICE_HIGH = (
    "Far too expensive for what you get.",
    "Overpriced, and the portions are small.",
    "My wallet did not enjoy it.",
)
PRICE_FAIR = ("Prices are fair.", "Good value for the money.", "Worth every penny.")
PRICE_LOW = ("A bit too simple for my liking.", "Cheap, and it feels cheap.", "I expected something finer.")
TASTE_HIGH = (
    "I love {cuisine} food and come back for it.",
    "Any fan of {cuisine} cooking should go.",
    "{cuisine} is my favorite kitchen.",
)
TASTE_LOW = (
    "{cuisine} food is not really my thing.",
    "I do not usually go for {cuisine} cooking.",
    "Maybe {cuisine} is not for me.",
)
PLACE = (
    "The room was lively on a Saturday night.",
    "We sat outside with the kids.",
    "It was a quiet lunch with colleagues.",
    "Parking is easy to find.",
    "We had a table by the window.",
    "There was music in the background.",
    "It was my second visit this year.",
)
CLOSING = {
    1: ("Never again!", "Stay away.", "A complete waste of an evening."),
    2: ("I will not be back.", "Disappointing overall.", "Would not recommend."),
    3: ("It was an average visit.", "Might give it another try.", "Neither good nor bad."),
    4: ("I would come again.", "A good place overall.", "Recommended."),
    5: ("I loved it, five stars!", "Cannot wait to return.", "Highly recommended to everyone."),
}


def review_text(
    rng: np.random.Generator,
    *,
    stars: int,
    cuisine: str,
    dishes: tuple[str, ...],
    service: float,
    price_gap: float,
    taste: float,
) -> str:
    """A review of 5 to 60 words. `price_gap`: the price level less the user's budget; `taste`: for the cuisine."""

    def one(sentences: tuple[str, ...]) -> str:
        dish = dishes[rng.integers(len(dishes))]
        return sentences[rng.integers(len(sentences))].format(dish=dish, cuisine=cuisine)

    said = [one(FOOD[stars])]
    if rng.uniform() < 0.65:
        # Service sways the stars only a little, but good evenings are remembered with good waiters.
        said.append(one(SERVICE_GOOD if service + 0.6 * (stars - 3.5) + rng.normal() > 0 else SERVICE_POOR))
    if rng.uniform() < 0.5:
        said.append(one(PRICE_HIGH if price_gap > 0.9 else PRICE_LOW if price_gap < -1.6 else PRICE_FAIR))
    if abs(taste) > 0.8 and rng.uniform() < 0.5:
        said.append(one(TASTE_HIGH if taste > 0 else TASTE_LOW))
    if rng.uniform() < 0.35:
        said.append(one(PLACE))
    if rng.uniform() < 0.3:
        said.append(one(FOOD[stars]))
    rng.shuffle(said)
    if len(said) == 1 or rng.uniform() < 0.6:
        said.append(one(CLOSING[stars]))
    return " ".join(said)


def caption(rng: np.random.Generator, dish: str, price: int) -> str:
    """What a captioner would say of a simulated photo."""
    plate = ("a paper tray", "a plain plate", "a white plate", "a fine porcelain plate")[price - 1]
    place = ("on a wooden table", "by a window", "under warm light", "on a counter")[rng.integers(4)]
    return f"{dish} on {plate} {place}"
