"""What an engine's prefix cache holds, rebuilt from its events, and whose prefix it is. Pure.

Blocks form a tree by content: a node is one block of tokens under the blocks before it. The tree keeps a
block's tokens once, however many agents share it, and for as long as it is resident, part of an agent's
prefix, or part of a prompt that the agent's next one is to be compared with.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile

from scalesim_adapters.base import BlockHash, Removed, Stored, Tier
from scalesim_daemon.eviction import Block, EvictionOrder, Group, Node

Namespace = tuple[str | None, str | None]
PARTLY_FILLED = 1
"""Blocks per request that no event announces: the last one, unless its tokens fill it exactly."""
MOST_PROMPTS = 20_000
"""Agents whose last prompt is kept; beyond that the one heard of longest ago is forgotten."""
_TOKEN_BYTES = array("I").itemsize


@dataclass(slots=True, eq=False)
class _Request:
    """An agent's requests in the engine: how many, their blocks, and where the newest prompt ends so far."""

    count: int = 0
    blocks: dict[Node, Block] = field(default_factory=dict)
    tip: Node | None = None


@dataclass(slots=True, eq=False)
class _Prompt:
    """Where an agent's newest prompt ends so far, and, while all of it is common with the prompt before,
    where that one ends. `ended` once another request of the agent has started."""

    tip: Node
    before: Node | None
    ended: bool = False

    def ends(self) -> tuple[Node, ...]:
        """Return the nodes that must stay known for the comparison."""
        return (self.tip,) if self.before is None else (self.tip, self.before)


class BlockTree:
    """The content and residency of one engine's blocks, `block_size` tokens each."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.resident = 0
        self._order = EvictionOrder()
        self._roots: dict[object, Node] = {}
        self._by_hash: dict[BlockHash, Node] = {}
        self._prefixes: dict[str, tuple[Node, ...]] = {}
        self._declared: set[str] = set()
        self._requests: dict[str, _Request] = {}
        self._prompts: OrderedDict[str, _Prompt] = OrderedDict()
        self._changed: set[str] = set()

    # What the engine tells

    def stored(self, event: Stored) -> None:
        """Take in blocks that became resident on the device."""
        if event.tier is not Tier.DEVICE or event.block_size != self.block_size or not event.hashes:
            return
        start = node = self._parent(event)
        used = {above: above.copies[0] for above in _path(start) if above.copies}
        for block_hash, tokens in zip(event.hashes, self._split(event.token_ids), strict=False):
            node = self._by_hash.get(block_hash) or _child(node, tokens)
            self._by_hash[block_hash] = node
            used[node] = Block(node)
            if not node.copies:
                self._changed |= node.users
            node.copies.append(used[node])
            self.resident += 1
        request = None if event.agent is None else self._requests.get(event.agent)
        if request is None:
            self._order.append(used.values())
        else:
            self._use(request, used)
            request.tip = node
        if event.agent is not None:
            self._learn(event.agent, start, node)

    def removed(self, event: Removed) -> int:
        """Take in blocks that left the device; return how many of them belong to some agent's prefix."""
        if event.tier is not Tier.DEVICE:
            return 0
        lost = 0
        for block_hash in event.hashes:
            node = self._by_hash.get(block_hash)
            if node is None or not node.copies:
                continue
            node.copies.remove(self._order.evicted(node.copies))
            self._order.rank(node)
            self.resident -= 1
            lost += bool(node.users)
            if not node.copies:
                self._changed |= node.users
                del self._by_hash[block_hash]
                self._prune(node)
        return lost

    def cleared(self) -> None:
        """Nothing is resident any more; prefixes stay known."""
        nodes, self._by_hash = list(self._by_hash.values()), {}
        self._changed.update(self._prefixes)
        self._order.clear()
        self.resident = 0
        for request in self._requests.values():
            request.blocks.clear()
        for node in nodes:
            node.copies.clear()
        for node in nodes:
            self._prune(node)

    # Whose memory it is

    def declare(self, agent: str, namespace: Namespace, token_ids: Sequence[int]) -> None:
        """Set an agent's prefix: the whole blocks of `token_ids` under `(LoRA name, cache salt)`."""
        self._forget_prompt(agent)
        self._declared.add(agent)
        node, path = self._root(namespace), []
        for tokens in self._split(token_ids):
            node = _child(node, tokens)
            path.append(node)
        self._set_prefix(agent, tuple(path))
        self._prune(node)

    def undeclare(self, agent: str) -> None:
        """Drop what was declared of an agent's prefix; what was learned stays."""
        if agent in self._declared:
            self.forget(agent)

    def forget(self, agent: str) -> None:
        """Drop what is known of an agent's prefix."""
        self._declared.discard(agent)
        self._forget_prompt(agent)
        self._set_prefix(agent, ())

    # Requests, announced or the sidecar's own

    def started(self, agent: str) -> None:
        """A request of the agent is on its way: what is there of its prefix is in use until it ends."""
        request = self._requests.setdefault(agent, _Request())
        request.count += 1
        if agent in self._prompts:
            self._prompts[agent].ended = True
        there = self._prefixes.get(agent, ())[: self.resident_blocks(agent)]
        self._use(request, {node: node.copies[0] for node in there if node not in request.blocks})

    def released(self, agent: str) -> int:
        """A request of the agent has ended. With its last one, its blocks join the eviction order.

        Return how many blocks it leaves behind that aren't part of the agent's prefix.
        """
        request = self._requests.get(agent)
        if request is None:
            return PARTLY_FILLED
        request.count -= 1
        if request.count:
            return PARTLY_FILLED
        del self._requests[agent]
        for block in request.blocks.values():
            block.holds -= 1
        path = _path(request.tip) if request.tip is not None else self._prefixes.get(agent, ())
        on_path = {node: request.blocks.pop(node) for node in path if node in request.blocks}
        self._order.append(request.blocks.values())
        self._order.append(on_path.values())
        return PARTLY_FILLED + sum(agent not in node.users for node in on_path)

    def demoted(self, agent: str) -> None:
        """The engine gives up what is the agent's alone before anything else, until the agent's next request."""
        alone = (node for node in self._prefixes.get(agent, ()) if len(node.users) == 1)
        self._order.prepend([block for node in alone for block in node.copies])

    # What one asks

    @property
    def evictions(self) -> int:
        """How many blocks the engine evicted."""
        return self._order.evictions

    @property
    def unpredicted(self) -> int:
        """How many evictions the order of the groups didn't foresee."""
        return self._order.unpredicted

    def prefix_blocks(self, agent: str) -> int:
        """Return the length of the agent's prefix in blocks, 0 where it isn't known."""
        return len(self._prefixes.get(agent, ()))

    def prefix_tokens(self, agent: str) -> int:
        """Return the length of the agent's prefix in tokens, 0 where it isn't known."""
        return self.prefix_blocks(agent) * self.block_size

    def resident_blocks(self, agent: str) -> int:
        """Return how many blocks at the head of the agent's prefix are on the device without a hole."""
        count = 0
        for node in self._prefixes.get(agent, ()):
            if not node.copies:
                break
            count += 1
        return count

    def resident_tokens(self, agent: str) -> int:
        """Return how many tokens these are."""
        return self.resident_blocks(agent) * self.block_size

    def tokens(self, agent: str, blocks: int) -> tuple[int, ...]:
        """Return the token ids of the first `blocks` blocks of the agent's prefix."""
        ids = array("I")
        for node in self._prefixes.get(agent, ())[:blocks]:
            ids.frombytes(node.tokens)
        return tuple(ids)

    def agents(self) -> Iterator[str]:
        """Yield the agents whose prefix is known."""
        return iter(self._prefixes)

    def take_changed(self) -> Set[str] | None:
        """Return the agents whose prefix, or what is resident of it, may have changed since the last call; None where
        it may be any."""
        changed, self._changed = self._changed, set()
        return changed

    def groups(self) -> Iterator[Group]:
        """Yield the groups of blocks that no request uses, the first to be evicted first."""
        return self._order.groups()

    # Inside

    def _split(self, token_ids: Sequence[int]) -> Iterator[bytes]:
        """Yield the whole blocks of a prompt."""
        packed, size = array("I", token_ids).tobytes(), self.block_size * _TOKEN_BYTES
        for end in range(size, len(packed) + 1, size):
            yield packed[end - size : end]

    def _root(self, key: object) -> Node:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Node(None, b"")
            root.key = key
        return root

    def _parent(self, event: Stored) -> Node:
        if event.parent is None:
            return self._root((event.lora_name, event.cache_salt))
        return self._by_hash.get(event.parent) or self._root(event.parent)

    def _use(self, request: _Request, blocks: dict[Node, Block]) -> None:
        for node, block in blocks.items():
            taken = request.blocks.get(node)
            if taken is not None and block is not node.copies[-1]:
                continue
            if taken is not None and taken is not block:
                # Taken for a hit, but computed again, as is the last block of a prompt of whole blocks.
                taken.holds -= 1
                self._order.append((taken,))
            if taken is not block:
                self._order.hold(block)
                request.blocks[node] = block

    def _learn(self, agent: str, start: Node, tip: Node) -> None:
        """Note where a prompt ends. The prefix is the whole blocks that the last two have in common."""
        last = self._prompts.get(agent)
        path = _path(tip)
        if agent in self._declared or not _is_whole(path):
            return
        if last is not None and last.tip is start and not last.ended:
            before = last.before
        elif tip in self._prefixes.get(agent, ()):
            return  # a part of the known prefix came back: no news of what the prompts have in common
        else:
            before = None if last is None else last.tip
        common = () if before is None else _common(_path(before), path)
        if common[-1:] != (tip,):
            before = None  # the prompts have parted
        self._keep_prompt(agent, _Prompt(tip, before))
        if common:
            self._set_prefix(agent, common)

    def _keep_prompt(self, agent: str, prompt: _Prompt) -> None:
        for node in prompt.ends():
            node.prompts += 1
        self._forget_prompt(agent)
        self._prompts[agent] = prompt
        if len(self._prompts) > MOST_PROMPTS:
            self.forget(next(iter(self._prompts)))

    def _forget_prompt(self, agent: str) -> None:
        prompt = self._prompts.pop(agent, None)
        if prompt is not None:
            for node in prompt.ends():
                node.prompts -= 1
                self._prune(node)

    def _set_prefix(self, agent: str, path: tuple[Node, ...]) -> None:
        self._changed.add(agent)
        old = self._prefixes.pop(agent, ())
        if path:
            self._prefixes[agent] = path
        kept = set(path)
        for node in path:
            node.users.add(agent)
            self._order.rank(node)
        for node in reversed(old):
            if node not in kept:
                node.users.discard(agent)
                self._order.rank(node)
                self._prune(node)

    def _prune(self, node: Node) -> None:
        """Drop nodes that nobody needs, from this one up."""
        while node.parent is not None and not (node.copies or node.users or node.children or node.prompts):
            node.parent.children.pop(node.tokens, None)
            node = node.parent
        if node.parent is None and not node.children:
            self._roots.pop(node.key, None)


def _child(parent: Node, tokens: bytes) -> Node:
    child = parent.children.get(tokens)
    if child is None:
        child = parent.children[tokens] = Node(parent, tokens)
    return child


def _path(tip: Node) -> list[Node]:
    """Return the nodes from below the root to `tip`."""
    path: list[Node] = []
    node = tip
    while node.parent is not None:
        path.append(node)
        node = node.parent
    path.reverse()
    return path


def _is_whole(path: Sequence[Node]) -> bool:
    """Whether a path begins where prompts begin, not below a block that was never heard of."""
    return bool(path) and path[0].parent is not None and isinstance(path[0].parent.key, tuple)


def _common(one: Sequence[Node], other: Sequence[Node]) -> tuple[Node, ...]:
    pairs = takewhile(lambda pair: pair[0] is pair[1], zip(one, other, strict=False))
    return tuple(node for node, _ in pairs)
