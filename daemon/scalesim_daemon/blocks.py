"""What an engine's prefix cache holds, rebuilt from its events, and the order in which it would evict. Pure.

Blocks form a tree by content: a node is one block of tokens under the blocks before it. The tree keeps a block's
tokens once, however many agents share it, and for as long as it is resident or part of an agent's prefix.

Eviction order, as vLLM's free queue has it: a request's blocks join the queue when it ends, the tail of the prompt
before its head; the front is evicted first. A request's last, partly filled block is never announced by an event;
such blocks are counted as `unseen` in the group of the request that left them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scalesim_adapters.base import BlockHash, Removed, Stored, Tier

Namespace = tuple[str | None, str | None]
UNSEEN_PER_REQUEST = 1


class Node:
    """One block under its parent; `copies` are the device copies, `users` the agents whose prefix it is part of."""

    __slots__ = ("children", "copies", "group", "hash", "parent", "tokens", "users")

    def __init__(self, parent: Node | None, tokens: tuple[int, ...]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.children: dict[tuple[int, ...], Node] = {}
        self.hash: BlockHash | None = None
        self.copies = 0
        self.users: set[str] = set()
        self.group: Group | None = None


@dataclass(slots=True, eq=False)
class Group:
    """Blocks that were released together and have the same users: neighbours in the eviction order."""

    users: set[str]
    blocks: int = 0
    unseen: int = 0

    @property
    def size(self) -> int:
        """All blocks of the group, announced or not."""
        return self.blocks + self.unseen


class BlockTree:
    """The content and residency of one engine's blocks, `block_size` tokens each."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.resident = 0
        self.unpredicted = 0
        self._roots: dict[object, Node] = {}
        self._by_hash: dict[BlockHash, Node] = {}
        # Insertion order is eviction order.
        self._groups: dict[Group, None] = {}
        self._prefixes: dict[str, tuple[Node, ...]] = {}
        self._declared: set[str] = set()
        self._tips: dict[str, tuple[Node | None, Node]] = {}

    # What the engine tells

    def stored(self, event: Stored) -> None:
        """Take in blocks that became resident on the device."""
        if event.tier is not Tier.DEVICE or event.block_size != self.block_size:
            return
        if event.parent is None:
            node = self._root((event.lora_name, event.cache_salt))
        else:
            node = self._by_hash.get(event.parent) or self._root(event.parent)
        start, size, nodes = node, self.block_size, []
        for index, block_hash in enumerate(event.hashes):
            node = self._child(node, event.token_ids[index * size : (index + 1) * size])
            node.hash = block_hash
            self._by_hash[block_hash] = node
            node.copies += 1
            self.resident += 1
            if node.group is not None:
                node.group.blocks += 1
            nodes.append(node)
        self._enqueue(nodes)
        if event.agent is not None and nodes:
            self._learn(event.agent, start, node)

    def removed(self, event: Removed) -> int:
        """Take in blocks that left the device; return how many of them belong to some agent's prefix."""
        if event.tier is not Tier.DEVICE:
            return 0
        lost = 0
        for block_hash in event.hashes:
            node = self._by_hash.get(block_hash)
            if node is None or node.copies == 0:
                continue
            if node.group is not None:
                self._consume_before(node.group)
                node.group.blocks -= 1
                self._drop_if_empty(node.group)
            node.copies -= 1
            self.resident -= 1
            lost += bool(node.users)
            if node.copies == 0:
                node.group = None
                del self._by_hash[block_hash]
                self._prune(node)
        return lost

    def cleared(self) -> None:
        """Nothing is resident any more; prefixes stay known."""
        nodes, self._by_hash = list(self._by_hash.values()), {}
        self._groups.clear()
        self._tips.clear()
        self.resident = 0
        for node in nodes:
            node.copies, node.group, node.hash = 0, None, None
        for node in nodes:
            self._prune(node)

    # Whose memory it is

    def declare(self, agent: str, namespace: Namespace, token_ids: Sequence[int]) -> None:
        """Set an agent's prefix: the whole blocks of `token_ids` under `(LoRA name, cache salt)`."""
        node, path, size = self._root(namespace), [], self.block_size
        for start in range(0, len(token_ids) - size + 1, size):
            node = self._child(node, tuple(token_ids[start : start + size]))
            path.append(node)
        self._declared.add(agent)
        if tuple(path) != self._prefixes.get(agent, ()):
            self._set_prefix(agent, tuple(path))

    def forget(self, agent: str) -> None:
        """Drop what is known of an agent's prefix."""
        self._declared.discard(agent)
        self._tips.pop(agent, None)
        self._set_prefix(agent, ())

    def started(self, agent: str) -> None:
        """A request of the agent is on its way: the blocks that it will use are not next to go."""
        self._enqueue(self._prefixes.get(agent, ()))

    def released(self, agent: str) -> int:
        """A request of the agent has ended: its blocks join the back of the eviction order.

        Return how many blocks it leaves behind that aren't part of the agent's prefix.
        """
        prefix = self._prefixes.get(agent, ())
        in_prefix = set(prefix)
        garbage = Group(set(), unseen=UNSEEN_PER_REQUEST)
        self._groups[garbage] = None
        _, tip = self._tips.get(agent, (None, None))
        while tip is not None and tip not in in_prefix and tip.parent is not None:
            if tip.copies:
                self._move(tip, garbage)
            tip = tip.parent
        self._enqueue(prefix)
        return garbage.size

    def touched(self, agent: str, blocks: int) -> None:
        """A request for the first `blocks` blocks of the agent's prefix, made by the sidecar, has ended."""
        self._groups[Group(set(), unseen=UNSEEN_PER_REQUEST)] = None
        self._enqueue(self._prefixes.get(agent, ())[:blocks])

    # What one asks

    def prefix_blocks(self, agent: str) -> int:
        """Return the length of the agent's prefix in blocks, 0 where it isn't known."""
        return len(self._prefixes.get(agent, ()))

    def resident_blocks(self, agent: str) -> int:
        """Return how many blocks at the head of the agent's prefix are on the device without a hole."""
        count = 0
        for node in self._prefixes.get(agent, ()):
            if not node.copies:
                break
            count += 1
        return count

    def tokens(self, agent: str, blocks: int) -> tuple[int, ...]:
        """Return the token ids of the first `blocks` blocks of the agent's prefix."""
        return tuple(token for node in self._prefixes.get(agent, ())[:blocks] for token in node.tokens)

    def agents(self) -> Iterator[str]:
        """Yield the agents whose prefix is known."""
        return iter(self._prefixes)

    def groups(self) -> Iterator[Group]:
        """Yield the groups, the first to be evicted first."""
        return iter(self._groups)

    # Inside

    def _root(self, key: object) -> Node:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Node(None, ())
        return root

    @staticmethod
    def _child(parent: Node, tokens: tuple[int, ...]) -> Node:
        child = parent.children.get(tokens)
        if child is None:
            child = parent.children[tokens] = Node(parent, tokens)
        return child

    def _enqueue(self, path: Sequence[Node]) -> None:
        """Move the resident blocks of a path to the back of the eviction order, its tail before its head."""
        group: Group | None = None
        for node in reversed(path):
            if not node.copies:
                continue
            # A parent's users include its child's, so that equal counts mean equal users.
            if group is None or len(group.users) != len(node.users):
                group = Group(node.users)
                self._groups[group] = None
            self._move(node, group)

    def _move(self, node: Node, group: Group) -> None:
        if node.group is not None:
            node.group.blocks -= node.copies
            self._drop_if_empty(node.group)
        group.blocks += node.copies
        node.group = group

    def _drop_if_empty(self, group: Group) -> None:
        if group.size == 0:
            self._groups.pop(group, None)

    def _consume_before(self, group: Group) -> None:
        """Blocks leave in order: what lay before a removed block without being announced has been used up."""
        passed: list[Group] = []
        for older in self._groups:
            if older is group:
                break
            passed.append(older)
        for older in passed:
            older.unseen = 0
            if older.blocks:
                self.unpredicted += 1
            else:
                del self._groups[older]

    def _learn(self, agent: str, start: Node, tip: Node) -> None:
        """Note the tip of a prompt. The prefix is what the last two prompts have in common, in whole blocks."""
        previous, last = self._tips.get(agent, (None, None))
        if last is not None and start is last:
            self._tips[agent] = (previous, tip)
            return
        if tip in self._prefixes.get(agent, ()):
            return  # a part of the known prefix came back: no news of what the prompts have in common
        self._tips[agent] = (last, tip)
        if last is not None and agent not in self._declared:
            common = _common(_path(last), _path(tip))
            if common and common != self._prefixes.get(agent):
                self._set_prefix(agent, common)

    def _set_prefix(self, agent: str, path: tuple[Node, ...]) -> None:
        old = self._prefixes.pop(agent, ())
        for node in path:
            node.users.add(agent)
        kept = set(path)
        for node in reversed(old):
            if node not in kept:
                node.users.discard(agent)
                self._prune(node)
        if path:
            self._prefixes[agent] = path
            self._enqueue(path)

    def _prune(self, node: Node) -> None:
        while node.parent is not None and not (node.copies or node.users or node.children):
            node.parent.children.pop(node.tokens, None)
            node = node.parent


def _path(tip: Node) -> list[Node]:
    path: list[Node] = []
    node: Node | None = tip
    while node is not None and node.parent is not None:
        path.append(node)
        node = node.parent
    path.reverse()
    return path


def _common(one: Sequence[Node], other: Sequence[Node]) -> tuple[Node, ...]:
    common: list[Node] = []
    for a, b in zip(one, other, strict=False):
        if a is not b:
            break
        common.append(a)
    return tuple(common)
