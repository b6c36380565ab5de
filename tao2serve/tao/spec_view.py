"""A spec's messages as TAO sees them: what a file says twice is merged, and maps are looked up by their keys."""

from __future__ import annotations

from dataclasses import dataclass

from tao2serve.tao.spec_tree import Block, Field, Scalar, SpecTree

__all__ = ["View", "root_view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One message: all the places of the file that make it up, and the path of its name."""

    tree: SpecTree
    blocks: tuple[Block, ...]
    path: str
    start: int  # place of the first, to point at when something is missing inside

    @property
    def exists(self) -> bool:
        return bool(self.blocks)

    @property
    def line(self) -> int | None:
        """The line it begins on; None for the file as a whole, and for what is not there."""
        return self.tree.line(self.start) if self.path and self.blocks else None

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fields(self, name: str) -> tuple[Field, ...]:
        return tuple(field for block in self.blocks for field in block.all(name))

    def has(self, name: str) -> bool:
        return bool(self.fields(name))

    def scalar(self, name: str) -> Scalar | None:
        """Return the value that counts, the last one; None if there is none."""
        found = [value for block in self.blocks for value in block.scalars(name)]
        return found[-1] if found else None

    def text(self, name: str) -> str:
        scalar = self.scalar(name)
        return scalar.string if scalar is not None else ""

    def number(self, name: str) -> float:
        """Return the value that counts, 0 where there is none, as in TAO."""
        scalar = self.scalar(name)
        return (scalar.number if scalar is not None else None) or 0.0

    def truth(self, name: str) -> bool:
        scalar = self.scalar(name)
        return scalar is not None and scalar.truth

    def line_of(self, name: str) -> int | None:
        """Return the line of the field that counts, else that of the message it is missing in."""
        found = self.fields(name)
        return self.tree.line(found[-1].start) if found else self.line

    def message(self, name: str) -> View:
        """Return a message inside, merged; one that is not there has no blocks."""
        blocks = tuple(inner for block in self.blocks for inner in block.blocks(name))
        found = self.fields(name)
        return View(tree=self.tree, blocks=blocks, path=self.at(name), start=found[0].start if found else self.start)

    def messages(self, name: str) -> tuple[View, ...]:
        """Return the messages of a repeated field, one by one."""
        found: list[View] = []
        for field in self.fields(name):
            for value in field.values:
                if isinstance(value, Block):
                    path = f"{self.at(name)}[{len(found)}]"
                    start = value.open if field.is_list else field.start
                    found.append(View(tree=self.tree, blocks=(value,), path=path, start=start))
        return tuple(found)

    def entries(self, name: str) -> dict[str, View]:
        """Return a map's entries by key, in file order, each a message of `key` and `value`; a later one replaces."""
        found: dict[str, View] = {}
        for entry in self.messages(name):
            key = entry.text("key")
            path = f"{self.at(name)}[{key}]"
            found[key] = View(tree=entry.tree, blocks=entry.blocks, path=path, start=entry.start)
        return found


def root_view(tree: SpecTree) -> View:
    return View(tree=tree, blocks=(tree.root,), path="", start=0)
