"""Short stories composed from a grammar, as training text for `anybit-tiny`.

Old books teach a network of six million parameters their sentences but not their plots: those run over chapters, and the window is
512 tokens.  `compose(seed)` writes whole stories that fit into it.  Each draws a hero, a place and one of the plots below;
what is named early (the hero, the thing that is lost, the creature that was helped) comes back at the end, so that whoever
predicts the next word has to remember it.  Every beat of a plot has several wordings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from anybit.zoo.story_words import (
    ANIMALS,
    BOYS,
    CHARACTERS,
    CHILDREN,
    ENDINGS,
    ERRANDS,
    GIRLS,
    HIDING,
    HOMES,
    KIN,
    MEETINGS,
    OPENINGS,
    SHELTERS,
    SKILLS,
    THINGS,
    TIMES,
    TRAITS,
    TREATS,
    TROUBLES,
)

T = TypeVar("T")


class Teller:
    """Draws the parts of one story and fills them into its sentences."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        girl = self.rng.random() < 0.5
        name, kin = self.pick(GIRLS if girl else BOYS), self.pick(KIN)
        trait = self.pick(TRAITS)
        if self.rng.random() < 0.5:
            who = f"{self.pick(CHILDREN)} {'daughter' if girl else 'son'}"
        elif self.rng.random() < 0.5:
            who = f"little {self.pick(ANIMALS)}"
        else:
            who = f"{self.pick(('little', 'small', 'young', 'poor'))} {'girl' if girl else 'boy'}"
        he, him, his = ("she", "her", "her") if girl else ("he", "him", "his")
        self.words = {
            "Name": name,
            "he": he,
            "him": him,
            "his": his,
            "He": he.capitalize(),
            "His": his.capitalize(),
            "a_who": "a " + who,
            "home": self.pick(HOMES),
            "kin": kin,
            "trait": trait,
            "time": self.pick(TIMES),
        }

    def pick(self, options: Sequence[T]) -> T:
        return options[self.rng.randrange(len(options))]

    def say(self, *options: str, **more: str) -> str:
        """One of the wordings, filled in; a slot may hold a sentence with slots of its own."""
        text = self.pick(options)
        while "{" in text:
            text = text.format(**self.words, **more)
        return text

    def opening(self) -> str:
        return self.say(*OPENINGS) + " " + self.say(*CHARACTERS)

    def ending(self, *lessons: str) -> str:
        """One of the plot's own last sentences, or one that fits every story."""
        return self.say(*(lessons if self.rng.random() < 0.6 else ENDINGS))


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def lost_thing(t: Teller) -> list[str]:
    """Something is lost, three are asked, the third one knows."""
    thing, place = t.pick(THINGS), t.pick(HIDING)
    first, second, third = t.rng.sample(MEETINGS, 3)
    more = {"thing": thing, "a_thing": an(thing), "place": place}
    lines = [
        t.opening()
        + " "
        + t.say(
            "{His} {kin} had given {him} {a_thing}, and {he} loved it more than anything else.",
            "The dearest thing {he} had was {a_thing}, which {his} {kin} had given {him}.",
            "On {his} birthday {his} {kin} gave {him} {a_thing}, and {he} took it with {him} wherever {he} went.",
            **more,
        ),
        t.say(
            "{time} the {thing} was gone. {Name} looked in the house and in the garden, but {he} could "
            "not find it anywhere.",
            "{time} {Name} lost the {thing}. {He} looked under the bed and behind the stove, but it was not there.",
            "But {time_} {Name} could not find the {thing}. {He} searched the whole house, and then {he} "
            "sat down and wept.",
            time_=t.words["time"][0].lower() + t.words["time"][1:],
            **more,
        )
        + " "
        + t.say(
            '"I will go and look for it," said {Name}.',
            "So {he} set out to look for it.",
            '"I must find it," said {Name}, and {he} went out of the door.',
        ),
    ]
    for animal in (first, second):
        lines.append(
            t.say(
                'First {he} met {a}. "Have you seen my {thing}?" asked {Name}. "No," said the '
                '{animal}, "I have not seen your {thing}."',
                'On the road {he} met {a}. "Dear {animal}," said {Name}, "have you seen my {thing}?" '
                "But the {animal} shook its head.",
                'Then {he} came to {a}. "Please tell me, where is my {thing}?" asked {Name}. "I do not '
                'know," said the {animal}, "but I hope you will find it."',
                a=an(animal),
                animal=animal,
                **more,
            )
            if animal == first
            else t.say(
                'Next {he} met {a}. "Have you seen my {thing}?" asked {Name}. "Not I," answered the '
                '{animal}. "Ask the {third}."',
                'A little farther on {he} met {a}. "I have lost my {thing}," said {Name}. "Then you '
                'must ask the {third}," said the {animal}, "for the {third} sees everything."',
                a=an(animal),
                animal=animal,
                third=third,
                **more,
            )
        )
    lines.append(
        t.say(
            'So {Name} went to the {third}. "Yes," said the {third}, "I saw your {thing} this morning. It is {place}."',
            'At last {Name} found the {third}. "Do not cry," said the {third}. "Your {thing} lies '
            '{place}. I saw it there myself."',
            third=third,
            **more,
        )
        + " "
        + t.say(
            "{Name} ran as fast as {he} could, and there, {place}, was the {thing}!",
            "{Name} thanked the {third} and looked {place}, and there lay the {thing}, just as the {third} had said.",
            third=third,
            **more,
        )
    )
    lines.append(
        t.say(
            '"Oh, how glad I am!" cried {Name}. {He} carried the {thing} home and showed it to {his} {kin}.',
            "{Name} held the {thing} close and laughed for joy. Then {he} went home, and {his} {kin} was glad too.",
            "Full of joy {Name} took the {thing} home, and {he} never lost it again.",
            **more,
        )
        + " "
        + t.ending(
            "And {Name} knew that whoever asks politely finds help.",
            "From that day on {Name} took good care of everything {he} had.",
            "And all of them were glad, and they lived happily ever after.",
        )
    )
    return lines


def kindness_repaid(t: Teller) -> list[str]:
    """A creature is helped, and helps in its turn when trouble comes."""
    trouble, safe, creatures = t.pick(TROUBLES)
    creature = t.pick(creatures)
    more = {
        "a_creature": an(creature.name),
        "creature": creature.name,
        "trapped": creature.trapped,
        "freed": creature.freed,
        "power": creature.power,
        "trouble": trouble,
        "safe": safe,
        "errand": t.say(*ERRANDS),
    }
    return [
        t.opening(),
        t.say(
            "{time} {Name} went {errand}. On the way {he} saw {a_creature} {trapped}.",
            "{time} {his} {kin} sent {him} {errand_}, and by the wayside {he} found {a_creature} {trapped}.",
            "{time} {Name} was walking through the fields when {he} heard a small voice crying. It was "
            "{a_creature}, {trapped}.",
            errand_="into the village"
            if "kin" in more["errand"] or t.words["kin"] in more["errand"]
            else more["errand"],
            **more,
        )
        + " "
        + t.say(
            '"Help me, and I will help you one day," said the {creature}. {Name} {freed} and set it free.',
            '"Poor {creature}," said {Name}, and {he} {freed}. "Thank you," said the {creature}. "I shall '
            'not forget it."',
            '"Please help me!" cried the {creature}. So {Name} {freed}, and the {creature} was saved. "If '
            'ever you need me, call," it said.',
            **more,
        ),
        t.say(
            'Not long afterwards {Name} {trouble}. "What shall I do?" {he} cried. "Nobody can help me now."',
            "That same evening {Name} {trouble}. {He} sat down and began to weep.",
            'A few days later {Name} {trouble}. "Alas," said {he}, "what will become of me?"',
            **more,
        ),
        t.say(
            'Then the {creature} came. "You helped me," it said, "and now I will help you." And it {power}.',
            'But the {creature} had heard {him}. "Do not be afraid," it said. It {power}.',
            "Then {Name} remembered the {creature} and called. At once the {creature} was there, and it {power}.",
            **more,
        )
        + " "
        + t.say("Soon {Name} {safe}.", "Before long {Name} {safe}.", "And so {Name} {safe}.", **more),
        t.say(
            '"Thank you, dear {creature}," said {Name}. "You are a true friend."',
            "{Name} thanked the {creature} with all {his} heart, and they stayed friends.",
            "{Name} took the {creature} in {his} arms and thanked it.",
            **more,
        )
        + " "
        + t.ending(
            "And {Name} never forgot that even the smallest friend can be the greatest help.",
            "And from that day on {Name} knew that a kind deed is never wasted.",
            "And they lived happily ever after.",
        ),
    ]


def learning(t: Teller) -> list[str]:
    """A wish to learn something, two failures, a teacher, and success."""
    skill, failed, succeeded = t.pick(SKILLS)
    teacher = t.pick(MEETINGS)
    more = {"skill": skill, "failed": failed, "succeeded": succeeded, "teacher": teacher, "a_teacher": an(teacher)}
    return [
        t.opening()
        + " "
        + t.say(
            "There was only one thing that {Name} wished for: {he} wanted to learn to {skill}.",
            "But {he} could not {skill}, and {he} wished for nothing so much as to learn it.",
            "{Name} wanted very much to {skill}, but nobody had ever taught {him}.",
            **more,
        ),
        t.say(
            "{time} {he} tried for the first time, but {he} {failed}. The others laughed at {him}, and "
            "{Name} went away to be alone.",
            '{time} {he} tried it, and {he} {failed}. "You will never {skill}," said the others.',
            'On the first day {he} {failed}. On the second day {he} {failed} again. "I shall never learn '
            'it," said {Name} sadly.',
            **more,
        ),
        t.say(
            'There {he} met {a_teacher}. "Why are you so sad?" asked the {teacher}. "Because I cannot '
            '{skill}," said {Name}.',
            'Then {a_teacher} came by. "Why do you weep?" asked the {teacher}. "I want to {skill}," '
            'answered {Name}, "and I cannot."',
            **more,
        )
        + " "
        + t.say(
            '"I will teach you," said the {teacher}, "but you must come every day and not lose heart."',
            '"Nobody can {skill} on the first day," said the {teacher}. "Come to me every morning, and '
            'I will show you how."',
            **more,
        ),
        t.say(
            "So {Name} went to the {teacher} every day. The first week it went badly, and the second week "
            "a little better.",
            "{Name} did as the {teacher} said. {He} tried again and again, and every day it went a little better.",
            **more,
        )
        + " "
        + t.say(
            "And when the third week came, {Name} {succeeded}.",
            "And one morning, behold, {Name} {succeeded}.",
            **more,
        ),
        t.say(
            'Now nobody laughed any more. "Who taught you to {skill}?" they asked. "The {teacher} did," said {Name}.',
            '"I can {skill}!" cried {Name}, and {he} ran to thank the {teacher}.',
            "{His} {kin} was very proud of {him}, and {Name} thanked the {teacher}.",
            **more,
        )
        + " "
        + t.ending(
            "And so {Name} learned that nothing is too hard for whoever does not lose heart.",
            "And from that day on {Name} taught it to all the little ones.",
            "And they were friends ever after.",
        ),
    ]


def sharing(t: Teller) -> list[str]:
    """A good thing is kept, which brings no joy; then it is shared."""
    treat = t.pick(TREATS)
    first, second = t.rng.sample(MEETINGS, 2)
    more = {"treat": treat, "a_treat": an(treat), "first": first, "second": second}
    more |= {"a_first": an(first), "a_second": an(second)}
    asks = t.say(
        '"I am so hungry," said the {first}. "Will you give me some of your {treat}?"',
        '"Dear {Name}," said the {first}, "give me a little of your {treat}, for I have eaten nothing today."',
        **more,
    )
    if t.rng.random() < 0.5:
        turn = t.say(
            '{Name} thought for a while. Then {he} said, "There is enough for two," and they sat down together.',
            '"Gladly," said {Name}, and {he} gave the {first} half of it.',
            **more,
        )
        after = t.say(
            'Soon there came {a_second} as well, and {Name} gave it the other half. "Now you have nothing '
            'left," said the {second}. "I have two friends," said {Name}.',
            "Then {a_second} came, and it was hungry too. {Name} shared once more, and there was enough for all three.",
            **more,
        )
    else:
        turn = t.say(
            '"No," said {Name}, "it is mine." And the {first} went sadly away.',
            "But {Name} held it fast and ran away, and {he} ate alone behind a hedge.",
            **more,
        )
        after = t.say(
            'But the {treat} did not taste good. "How lonely it is to eat alone," thought {Name}. So {he} '
            "went to look for the {first} and gave it all that was left.",
            'But {Name} could not be merry. When {he} met {a_second}, it said, "What is eaten alone is '
            'only half as sweet." Then {Name} went back to the {first} and shared the {treat} with it.',
            **more,
        )
    return [
        t.opening(),
        t.say(
            '{time} {his} {kin} gave {him} {a_treat}. "Take it with you," said {his} {kin}, "and be good."',
            "{time} {Name} was given {a_treat} for {his} work, and {he} set out for home.",
            **more,
        )
        + " "
        + t.say("On the way {he} met {a_first}.", "Before {he} had gone far, {he} met {a_first}.", **more),
        asks + " " + turn,
        after,
        t.say(
            "They ate the {treat} together and told each other stories until the sun went down.",
            "They laughed and sang together, and the {treat} had never tasted so good.",
            "When the {treat} was finished, they danced together on the grass.",
            **more,
        )
        + " "
        + t.ending(
            "And so {Name} learned that whoever gives gladly never goes without.",
            "And from that day on {Name} shared whatever {he} had.",
            "And they were friends ever after.",
        ),
    ]


def lost_in_the_storm(t: Teller) -> list[str]:
    """Somebody does not come home, and the hero goes out with a light."""
    kin = t.words["kin"]
    he, him, his = ("she", "her", "her") if kin in ("mother", "grandmother", "aunt", "sister") else ("he", "him", "his")
    weather, over = t.pick(
        (
            ("snow", "the snow stopped"),
            ("storm", "the storm was over"),
            ("fog", "the fog lifted"),
            ("rain", "the rain stopped"),
        )
    )
    light = t.pick(("lantern", "torch", "candle", "lamp"))
    where = t.pick(SHELTERS)
    more = {"weather": weather, "over": over, "light": light, "where": where, "khe": he, "khim": him, "khis": his}
    return [
        t.opening()
        + " "
        + t.say(
            "{He} lived there with {his} {kin}.", "{His} {kin} lived in the same house, and they were never apart."
        ),
        t.say(
            "{time} {his} {kin} went out and did not come back. Evening came, and with it the {weather}.",
            "{time} there came a great {weather}, and {his} {kin} was not yet at home.",
            **more,
        )
        + " "
        + t.say(
            '"I am afraid of the dark," thought {Name}, "but I am more afraid for my {kin}." So {he} '
            "took the {light} and went out.",
            '{Name} waited and waited. At last {he} lit the {light} and said, "I will go and look for {khim}."',
            **more,
        ),
        t.say(
            "It was so dark that {he} could see only what the {light} showed. {He} called, but nobody answered.",
            "The {weather} was so heavy that {he} could hardly see the path, but {he} held the {light} "
            "high and went on.",
            **more,
        )
        + " "
        + t.say("Three times {he} wanted to turn back, and three times {he} went on.", "{He} called again and again."),
        t.say(
            "At last {he} heard a faint voice. There, {where}, sat {his} {kin}, who had hurt {khis} foot "
            "and could not walk.",
            "Then {he} saw something move {where}. It was {his} {kin}, cold and tired, who had lost the way.",
            **more,
        )
        + " "
        + t.say(
            '"I saw your {light}," said {his} {kin}, "and I knew that you would come."',
            '"How did you find me?" asked {his} {kin}. "I did not stop looking," said {Name}.',
            **more,
        ),
        t.say(
            "They went home together, slowly, with the {light} before them. When they reached the door, {over}.",
            "{Name} led {khim} home by the hand, and when they sat by the fire, {over}.",
            **more,
        )
        + " "
        + t.ending(
            "And from that day on {Name} was not afraid of the dark any more.",
            "And nobody in the village was as brave as {Name}.",
            "And they were never parted again, and they lived happily ever after.",
        ),
    ]


PLOTS: tuple[Callable[[Teller], list[str]], ...] = (lost_thing, kindness_repaid, learning, sharing, lost_in_the_storm)


def compose(seed: int) -> str:
    """A story of 110 to 260 words, one paragraph a line; the same seed writes the same story."""
    teller = Teller(seed)
    return "\n".join(teller.pick(PLOTS)(teller))
