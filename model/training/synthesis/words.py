"""The words of the synthetic web shop: departments, products, series, brands, families."""

# Each line a department, its categories, and the products of each.
_TREE = """
Beauty: Skin Care = Face Cream, Cleanser, Sun Lotion, Lip Balm, Night Serum; Make-up = Lipstick, \
Mascara, Foundation, Eye Pencil, Blush; Hair Care = Shampoo, Conditioner, Hair Mask, Hair Dryer, \
Styling Gel; Fragrance = Perfume, Body Mist, Scented Candle, Room Spray, Cologne; Bath = Shower \
Gel, Bath Salt, Hand Soap, Body Scrub, Sponge
Kitchen: Cookware = Frying Pan, Saucepan, Wok, Casserole, Baking Tray; Appliances = Toaster, \
Kettle, Blender, Coffee Machine, Air Fryer; Knives = Chef Knife, Bread Knife, Knife Block, \
Peeler, Sharpener; Tableware = Dinner Plate, Soup Bowl, Coffee Mug, Wine Glass, Serving Board; \
Storage = Food Jar, Lunch Box, Spice Rack, Bread Bin, Water Bottle
Sports: Running = Running Shoe, Running Vest, Sports Watch, Hydration Belt, Head Torch; Cycling = \
Bike Helmet, Bike Light, Cycling Jersey, Bike Pump, Saddle Bag; Fitness = Yoga Mat, Dumbbell, \
Kettlebell, Resistance Band, Skipping Rope; Swimming = Swim Goggle, Swim Cap, Swimsuit, \
Kickboard, Beach Towel; Racket Sports = Tennis Racket, Badminton Set, Squash Ball, \
Racket Bag, Grip Tape
Outdoor: Camping = Tent, Sleeping Bag, Camping Stove, Camping Chair, Lantern; Hiking = Hiking \
Boot, Backpack, Trekking Pole, Rain Jacket, Compass; Climbing = Climbing Rope, Harness, Carabiner, \
Chalk Bag, Climbing Shoe; Fishing = Fishing Rod, Fishing Reel, Lure, Landing Net, Tackle Box; \
Winter = Ski Jacket, Ski Goggle, Snowshoe, Sledge, Thermal Shirt
Electronics: Audio = Headphone, Earbud, Loudspeaker, Soundbar, Turntable; Computers = Laptop, \
Monitor, Keyboard, Mouse, Webcam; Phones = Smartphone, Phone Case, Charger, Power Bank, Phone \
Holder; Cameras = Camera, Lens, Tripod, Camera Bag, Memory Card; Smart Home = Smart Plug, Smart \
Bulb, Doorbell, Thermostat, Motion Sensor
Toys: Building = Brick Set, Marble Run, Magnet Tile, Model Kit, Wooden Block; Games = Board Game, \
Card Game, Dice Game, Puzzle, Party Game; Dolls = Fashion Doll, Baby Doll, Doll House, Doll \
Pram, Puppet; Vehicles = Toy Car, Toy Train, Toy Truck, Race Track, Toy Plane; Learning = Globe, \
Microscope, Science Kit, Abacus, Letter Board
Garden: Tools = Spade, Rake, Pruner, Garden Fork, Wheelbarrow; Plants = Rose Bush, Herb Pot, \
Tomato Plant, Fruit Tree, Flower Bulb; Watering = Garden Hose, Sprinkler, Watering Can, Rain \
Barrel, Drip Kit; Furniture = Garden Bench, Parasol, Hammock, Lounger, Garden Table; Grilling = \
Charcoal Grill, Gas Grill, Grill Tong, Smoker Box, Pizza Stone
Fashion: Tops = Shirt, Blouse, Sweater, Hoodie, Cardigan; Bottoms = Jean, Skirt, Chino, Legging, \
Short; Shoes = Sneaker, Sandal, Ankle Boot, Loafer, Slipper; Bags = Handbag, Tote Bag, Wallet, \
Suitcase, Belt Bag; Jewellery = Necklace, Bracelet, Ring, Earring, Brooch
Home: Bedding = Pillow, Duvet, Bed Sheet, Blanket, Mattress Topper; Lighting = Table Lamp, Floor \
Lamp, Ceiling Light, Fairy Light, Lamp Shade; Decoration = Vase, Picture Frame, Wall Clock, \
Mirror, Cushion; Cleaning = Vacuum Cleaner, Mop, Broom, Laundry Basket, Ironing Board; Office = \
Desk, Office Chair, Bookshelf, Desk Lamp, Filing Box
Pets: Dogs = Dog Bed, Dog Leash, Dog Collar, Dog Toy, Dog Bowl; Cats = Cat Tree, Litter Box, \
Scratching Post, Cat Toy, Cat Carrier; Birds = Bird Cage, Bird Feeder, Bird Bath, Perch, Nest \
Box; Fish = Aquarium, Fish Filter, Aquarium Plant, Air Stone, Fish Feeder; Small Pets = Hamster \
Wheel, Rabbit Hutch, Hay Rack, Tunnel, Chew Stick
Music: Guitars = Acoustic Guitar, Electric Guitar, Guitar Strap, Guitar Pick, Capo; Keys = Stage \
Piano, Synthesizer, Keyboard Stand, Piano Bench, Sustain Pedal; Drums = Drum Kit, Snare Drum, \
Cymbal, Drum Stick, Cajon; Strings = Violin, Cello, Bow, Rosin, Violin Case; Studio = Microphone, \
Mixer, Audio Interface, Pop Filter, Studio Monitor
Books: Fiction = Crime Novel, Fantasy Novel, Love Story, Short Story, Classic Novel; Children = \
Picture Book, Bedtime Story, Activity Book, Comic, Sticker Book; Cooking = Baking Book, Vegan \
Cookbook, Grill Book, Soup Book, Wine Guide; Travel = City Guide, Road Atlas, Travel Diary, \
Hiking Guide, Phrase Book; Science = Physics Book, Nature Guide, Star Chart, Maths Book, Field Guide
"""


def _parsed() -> dict[str, dict[str, list[str]]]:
    tree: dict[str, dict[str, list[str]]] = {}
    for line in _TREE.strip().splitlines():
        department, categories = line.split(": ")
        tree[department] = {
            name.strip(): [item.strip() for item in products.split(",")]
            for name, products in (category.split("=") for category in categories.split("; "))
        }
    return tree


TREE = _parsed()
"""Department -> category -> products, 12 x 5 x 5."""


def plural(product: str) -> str:
    """Return the name of the leaf category that holds a product."""
    for ending, many in (
        ("fe", "ves"),
        ("lf", "lves"),
        ("ey", "eys"),
        ("ay", "ays"),
        ("oy", "oys"),
        ("y", "ies"),
    ):
        if product.endswith(ending):
            return product.removesuffix(ending) + many
    return product + ("es" if product.endswith(("s", "sh", "ch", "x")) else "s")


SECTIONS = (
    *("Classic", "Premium", "Compact", "Travel", "Kids", "Professional", "Eco", "Budget"),
    *("Designer", "Vintage", "Sport", "Family", "Heavy Duty", "Lightweight", "Limited", "Starter"),
    *("Luxury", "Urban", "Country", "Nordic", "Organic", "Deluxe", "Modern", "Seasonal"),
)
"""What tells the sections of one leaf category apart."""

_SYLLABLES = (
    *("ba", "be", "bo", "ca", "co", "da", "de", "do", "fa", "fe", "fi", "ga", "go", "ha", "he"),
    *("jo", "ka", "ke", "ki", "la", "le", "li", "lo", "lu", "ma", "me", "mi", "mo", "na", "ne"),
    *("ni", "no", "pa", "pe", "pi", "po", "ra", "re", "ri", "ro", "ru", "sa", "se", "si", "so"),
    *("ta", "te", "ti", "to", "tu", "va", "ve", "vi", "vo", "wa", "we", "xa", "ya", "za", "zo"),
)


def series_name(number: int) -> str:
    """Return an invented name, a distinct one for each number below `SERIES_NAMES`."""
    first, rest = divmod(number, len(_SYLLABLES) ** 2)
    second, third = divmod(rest, len(_SYLLABLES))
    return (_SYLLABLES[first] + _SYLLABLES[second] + _SYLLABLES[third]).capitalize()


def brand_name(number: int) -> str:
    """Return an invented name that is no series' name, a distinct one for each series' number."""
    return series_name(number) + "n"


SERIES_NAMES = len(_SYLLABLES) ** 3

FAMILIES = (
    ("Amber", "solid oak and brass", "warm autumn evenings"),
    ("Arctic", "brushed aluminium", "cold and windy days"),
    ("Coral", "recycled ocean plastic", "holidays by the sea"),
    ("Cobalt", "hardened steel", "hard daily work"),
    ("Desert", "sand coloured canvas", "long dry journeys"),
    ("Ember", "heat proof ceramic", "fire and hot kitchens"),
    ("Forest", "certified beech wood", "walks under trees"),
    ("Garnet", "dark red lacquer", "festive occasions"),
    ("Harbour", "waterproof rubber", "rain and boats"),
    ("Ivory", "soft combed cotton", "sensitive skin"),
    ("Jade", "polished stone", "quiet moments"),
    ("Lunar", "reflective fibre", "dark winter nights"),
    ("Meadow", "natural linen", "picnics in spring"),
    ("Onyx", "matt black carbon", "speed and competition"),
    ("Pebble", "rounded silicone", "small hands"),
    ("Quartz", "clear tempered glass", "bright modern rooms"),
    ("Ruby", "fine merino wool", "gifts for loved ones"),
    ("Sierra", "ripstop nylon", "steep mountain trails"),
    ("Topaz", "gilded copper", "elegant dinners"),
    ("Velvet", "plush velour", "cosy weekends"),
)
"""Name, material and use of the variant families that descriptions tell apart."""
