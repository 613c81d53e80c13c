"""What the stories of `story_grammar` are composed of: names, places, things, creatures and what they can do."""

from __future__ import annotations

from dataclasses import dataclass


def listed(text: str) -> tuple[str, ...]:
    """The entries of a list that is written with bars between them."""
    return tuple(" ".join(entry.split()) for entry in text.split("|"))


BOYS = listed(
    """
    Peter | Hans | Tom | Jack | Will | Robin | Martin | Oliver | Ned | Sam | Ben | Felix | Hugo | Anton | Caspar |
    Giles | Toby | Rufus | Simon | Arthur | Emil | Jasper | Edmund | Konrad | Leo | Barnaby
    """
)
GIRLS = listed(
    """
    Rose | Mary | Anna | Clara | Lily | Elsa | Nell | Molly | Greta | Ida | Marian | Lucy | Heidi | Alice | Dora |
    Ruth | Hazel | Ivy | Flora | Betty | Sophie | Agnes | Martha | Olive | Winifred | Gerda
    """
)
CHILDREN = listed(
    """
    miller's | fisherman's | baker's | woodcutter's | shepherd's | weaver's | gardener's | blacksmith's |
    ferryman's | beekeeper's | potter's | clockmaker's
    """
)
ANIMALS = listed(
    """
    rabbit | hedgehog | fox | squirrel | mouse | badger | lamb | goose | bear | hen | kitten | frog | mole |
    donkey | pony | puppy
    """
)
TRAITS = listed(
    """
    kind | brave | merry | curious | gentle | patient | clever | cheerful | shy | hard-working | quiet |
    good-hearted
    """
)
HOMES = listed(
    """
    at the edge of a great forest | beside a quiet river | at the foot of a blue mountain | near a little village
    | on a windy hill | by the shore of the sea | in a green valley | behind an old mill | at the end of a long
    lane | under a tall oak tree | beside a deep lake | between two meadows
    """
)
TIMES = listed(
    """
    One fine morning | One spring morning | One day | One autumn day | One summer morning | One cold winter day |
    One bright day | Early one morning | One windy afternoon
    """
)
OPENINGS = (
    "Once upon a time there was {a_who} called {Name}, who lived {home}.",
    "Once upon a time, {home}, there lived {a_who} whose name was {Name}.",
    "There was once {a_who} named {Name}, who lived {home}.",
    "Long ago, {home}, there lived {a_who} called {Name}.",
    "Once there lived {home} {a_who}, and {his} name was {Name}.",
    "Once upon a time there was {a_who} named {Name}. {He} lived in a little house {home}.",
)
CHARACTERS = (
    "{Name} was {trait}, and everybody was fond of {him}.",
    "{He} was so {trait} that all the neighbours loved {him}.",
    "Everyone who knew {him} said that {Name} was the most {trait} creature in the world.",
    "{Name} had not much, but {he} was {trait} and content.",
    "{He} was poor, but {he} was {trait}, and {he} sang all day long.",
)
KIN = listed(
    """
    mother | father | grandmother | grandfather | aunt | uncle | sister | brother
    """
)
THINGS = listed(
    """
    silver bell | golden key | red ball | blue cap | little lantern | wooden flute | woollen scarf | copper kettle
    | green umbrella | white feather | glass marble | small drum | tin whistle | leather purse | picture book |
    straw hat | silver spoon | wicker basket | music box | paper kite | yellow ribbon | warm cloak
    """
)
TREATS = listed(
    """
    apple pie | basket of cherries | honey cake | loaf of warm bread | jar of honey | plum cake | bowl of
    strawberries | round cheese | bag of nuts | gingerbread house | pot of soup | basket of pears
    """
)
MEETINGS = listed(
    """
    old owl | brown hare | speckled hen | wise old toad | grey goose | little wren | red squirrel | black crow |
    green frog | white cat | old donkey | sleepy badger | busy bee | tall stork | spotted cow
    """
)
HIDING = listed(
    """
    under the roots of a willow | in a hollow tree | beneath a heap of dry leaves | behind the garden wall | in
    the long grass by the brook | under the old stone bridge | at the bottom of the dry well | on a branch of the
    apple tree | beside the mill pond | in the hay of the barn
    """
)
SHELTERS = listed(
    """
    under the roots of a great willow | under the old stone bridge | behind a stone wall | beneath a fallen tree |
    in a ditch beside the road | in the shelter of a rock | at the edge of the quarry | under a bush by the brook
    """
)
ENDINGS = (
    "And if they have not moved away, they are living there still.",
    "And {Name} was happy for the rest of {his} days.",
    "That night {Name} slept soundly, and {he} dreamed of it all once more.",
    "And whenever {Name} told the story afterwards, {he} laughed with joy.",
)


@dataclass(frozen=True)
class Creature:
    """An animal in need, how the hero frees it, and what it can do in return for each kind of trouble."""

    name: str
    trapped: str
    freed: str
    power: str


# Where a plot needs help, the creature must be one that can give it.
SWIMMERS = (
    Creature("swan", "caught in a fisherman's net", "cut the net", "carried {him} across on its broad white back"),
    Creature(
        "otter",
        "held fast by a trap",
        "opened the trap",
        "swam before {him} and showed {him} where the water was shallow",
    ),
    Creature("beaver", "pinned under a fallen log", "rolled the log away", "felled a tall tree, and it made a bridge"),
    Creature("turtle", "lying helpless on its back", "turned it over", "let {him} ride across on its hard shell"),
    Creature("wild duck", "tangled in the reeds", "pulled the reeds apart", "brought an old boat from the other bank"),
)
GUIDES = (
    Creature(
        "owl",
        "stuck in a thorn bush",
        "bent the thorns aside",
        "flew before {him} from tree to tree until they came to the path",
    ),
    Creature(
        "firefly",
        "caught in a spider's web",
        "broke the web",
        "called all its brothers, and they lit up the whole wood",
    ),
    Creature("dog", "tied to a post and forgotten", "untied the rope", "put its nose to the ground and led {him} home"),
    Creature(
        "bat",
        "shut up in an old barn",
        "opened the barn door",
        "knew every path in the dark and led {him} out of the wood",
    ),
    Creature(
        "deer", "caught in a hunter's rope", "loosened the rope", "let {him} ride on its back to the edge of the wood"
    ),
)
OPENERS = (
    Creature("mouse", "shut up in a box", "lifted the lid", "gnawed through the rope that held the door"),
    Creature(
        "magpie",
        "stuck fast in a chimney",
        "drew it out gently",
        "stole the key from the nail and brought it in its beak",
    ),
    Creature(
        "squirrel",
        "held by its tail in the crack of a tree",
        "widened the crack",
        "slipped through the bars and pushed back the bolt",
    ),
    Creature(
        "woodpecker",
        "lying on the ground with a hurt wing",
        "bound up the wing",
        "hammered at the lock until it fell to pieces",
    ),
    Creature(
        "ant", "drowning in a puddle", "lifted it out with a leaf", "crept into the lock and turned it from inside"
    ),
)
CREATURES = (*SWIMMERS, *GUIDES, *OPENERS)
TROUBLES: tuple[tuple[str, str, tuple[Creature, ...]], ...] = (
    ("came to a wide river, and there was no bridge", "crossed the river", SWIMMERS),
    ("found that the flood had washed away the bridge", "stood safely on the other side", SWIMMERS),
    ("lost the way in the dark wood", "saw the lights of home", GUIDES),
    ("was still far from home when night fell, and there was no moon", "stood before the door at home", GUIDES),
    ("was caught by a cross old giant, who shut {him} up in his kitchen", "was free", OPENERS),
    ("fell asleep in a strange tower, and a witch locked the door", "was free", OPENERS),
)
SKILLS: tuple[tuple[str, str, str], ...] = (
    ("swim", "sank like a stone", "swam like a fish"),
    ("sing", "could only croak", "sang so sweetly that the birds fell silent"),
    ("dance", "fell over {his} own feet", "danced as lightly as a leaf"),
    ("whistle", "made no sound at all", "whistled a tune from beginning to end"),
    ("bake bread", "burned the loaf black", "baked a loaf that was golden and sweet"),
    ("skate", "tumbled upon the ice", "flew over the ice like the wind"),
    ("play the fiddle", "made the cats run away", "played so well that everybody danced"),
    ("climb trees", "slid down again to the ground", "sat in the very top of the tree"),
    ("count the stars", "fell asleep at ten", "counted a hundred of them"),
)
ERRANDS = listed(
    """
    to market | to the mill | to {his} {kin}'s house | to the village | into the forest to gather wood | to the
    well | to the fair | over the hill
    """
)
