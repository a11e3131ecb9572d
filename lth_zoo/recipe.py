"""A run as data: frozen dataclasses with every default resolved, and their YAML form.

Docstrings under the fields are the help texts of the command line.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from . import registry
from .errors import BadInput, unknown
from .protocols import Finder
from .rewind import Rewind

#: Optimisers that have a momentum of that name; Adam's kind has betas.
MOMENTUM = ("sgd", "rmsprop")
BETAS = ("adam", "adamw", "nadam")


@dataclass(frozen=True)
class Training:
    """How one network is trained; the same for dense, ticket and controls."""

    iterations: int = 1000
    """Optimiser iterations of one whole training."""
    batch_size: int = 60
    """Examples a step."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "nadam", "adafactor"] = "adam"
    """Optimiser; the fused kernel is used where torch has one."""
    learning_rate: float = 1.2e-3
    """Learning rate after the warm-up."""
    momentum: float = 0.0
    """Momentum (sgd, rmsprop)."""
    nesterov: bool = False
    """Nesterov momentum (sgd)."""
    betas: tuple[float, float] | None = None
    """Decay of the optimiser's averages of gradients and squares (adam, adamw, nadam)."""
    weight_decay: float = 0.0
    """Weight decay, as the optimiser defines it."""
    schedule: Literal["constant", "step", "cosine", "linear"] = "constant"
    """Shape of the learning rate over the iterations."""
    milestones: tuple[int, ...] = ()
    """Iterations at which the step schedule multiplies the rate by gamma."""
    gamma: float = 0.1
    """Factor of the step schedule."""
    warmup: int = 0
    """Iterations of linear warm-up."""
    clip_norm: float | None = None
    """Largest global norm of the masked gradients."""
    average: float | None = None
    """Decay of a moving average of the weights, which is then what is evaluated and pruned."""
    evaluate_every: int = 100
    """Iterations between two looks at the validation part."""
    result: Literal["last", "best"] = "last"
    """What a training gives: its last state, or that of its best look at the validation part."""
    accumulation: int = 1
    """Batches whose gradients are averaged into one step."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of forward and backward; the weights stay fp32."""
    threads: int = 1
    """CPU threads of one training; another number may round differently."""
    deterministic: bool = False
    """Whether to forbid operations that a GPU does in no fixed order."""

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "evaluate_every", "accumulation", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"training.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.learning_rate > 0 or not math.isfinite(self.learning_rate):
            raise BadInput(f"training.learning_rate is {self.learning_rate}; it must be above 0")
        for name in ("momentum", "weight_decay", "warmup"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"training.{name} is {getattr(self, name)}; it must be at least 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise BadInput(f"training.clip_norm is {self.clip_norm}; it must be above 0")
        if self.average is not None and not 0 < self.average < 1:
            raise BadInput(f"training.average is {self.average}; it must be between 0 and 1")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput(f"training.betas are {list(self.betas)}; both must be in [0, 1)")
        check_choices(self, "training.")
        self._check_together()

    def _check_together(self) -> None:
        """Raise if a value would be ignored beside another."""
        if self.momentum and self.optimizer not in MOMENTUM:
            raise BadInput(
                f"training.momentum is {self.momentum}, but optimizer {self.optimizer!r} has none; "
                f"leave it at 0, or choose {' or '.join(MOMENTUM)}"
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise BadInput(
                f"training.nesterov is True with optimizer {self.optimizer!r} and momentum "
                f"{self.momentum}; it needs sgd and a momentum above 0"
            )
        if self.betas is not None and self.optimizer not in BETAS:
            raise BadInput(
                f"training.betas are {list(self.betas)}, but optimizer {self.optimizer!r} has "
                f"none; leave them out, or choose {' or '.join(BETAS)}"
            )
        if self.milestones and self.schedule != "step":
            raise BadInput(
                f"training.milestones are {list(self.milestones)} with schedule "
                f"{self.schedule!r}; only schedule 'step' has milestones"
            )

    def plain(self) -> dict[str, Any]:
        """Return plain data as it stands in jobs: betas and result only where they are set."""
        data = asdict(self)
        usual = {"betas": None, "result": "last"}
        return {k: v for k, v in data.items() if k not in usual or v != usual[k]}

    def rate_at(self, iteration: int) -> float:
        """Return the learning rate of one iteration, counted from 0.

        From ``iterations`` on (``rewind none`` trains on from there) it stays at the last one:
        a cosine, at its end exactly 0, would train nothing.
        """
        scale = 1.0
        if iteration < self.warmup:
            scale = (iteration + 1) / self.warmup
        elif self.schedule == "step":
            scale = self.gamma ** sum(iteration >= m for m in self.milestones)
        elif self.schedule == "cosine":
            last = min(iteration, self.iterations - 1)
            done = (last - self.warmup) / max(1, self.iterations - self.warmup)
            scale = 0.5 * (1 + math.cos(math.pi * max(0.0, done)))
        elif self.schedule == "linear":
            last = min(iteration, self.iterations - 1)
            scale = (self.iterations - last) / max(1, self.iterations - self.warmup)
        return self.learning_rate * scale


def default_finder() -> Finder:
    """Return iterative magnitude pruning with its defaults."""
    finder: Finder = registry.find("finders", "imp")()
    return finder


@dataclass(frozen=True)
class Recipe:
    """Model x task x finder x every hyper-parameter: one experiment, and what it costs."""

    model: str = "lenet-300-100"
    """What is pruned: a name of `lth-zoo ls models`, or module:function of your own."""
    task: str = "digits"
    """What it learns: a name of `lth-zoo ls tasks`."""
    finder: Finder = field(default_factory=default_finder)
    """How tickets are found."""
    training: Training = field(default_factory=Training)
    """How every network is trained."""
    epochs: float | None = None
    """Passes over the training part, in place of training.iterations: so that a protocol can be
    the same for tasks of any size."""
    data_fraction: float = 1.0
    """Share of the training part that every training sees: one fixed subset, for scarce data."""
    sparsity: float = 0.9
    """Removed share of the prunable weights at the last level, in [0, 1)."""
    graph_sparsity: float = 0.0
    """Removed share of the graph's edges at the last level, in [0, 1); for finders that prune
    edges, on tasks with a graph."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Root seeds; each is its own initialisation, search and retraining."""
    controls: tuple[str, ...] = ("reinit", "shuffle", "random-global", "random-erk", "one-shot")
    """Arms that destroy one ingredient of the ticket: names of `lth-zoo ls controls`."""
    controls_at: Literal["all", "last"] | tuple[int, ...] = "all"
    """Levels at which the controls run: all, the last, or these and the last."""
    prune_first: bool = True
    """Whether the layer next to the input may be pruned."""
    prune_last: bool = True
    """Whether the output layer may be pruned."""
    exclude: tuple[str, ...] = ()
    """Layers that stay dense, by module name."""
    only: tuple[str, ...] = ()
    """Parts of the model that may be pruned, by module name (generator, decoder, encoder.layer.3);
    the rest stays dense (default: all of it)."""
    include: tuple[str, ...] = ()
    """Layers to prune although the family leaves them dense (bert.pooler.dense)."""
    head: Literal["rewind", "fresh", "carry"] | None = None
    """What a level's output head gets: back with the rest, a fresh draw, or the trained one of
    the level before (default: the family's; BERT fresh, others rewind)."""
    max_length: int | None = None
    """Tokens of one text, longer ones are cut (default: the task's)."""
    compare: Literal["paired", "welch"] = "paired"
    """Test of the verdict: arms of one seed share data order and (but for re-init) start."""
    name: str = ""
    """Name of the recipe, shown in reports."""
    paper: str = ""
    """Where the protocol is from."""
    expected: str = ""
    """Published figures and their spread, shown beside the measured ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise BadInput(f"sparsity is {self.sparsity}; it must be at least 0 and below 1")
        if not 0 <= self.graph_sparsity < 1:
            raise BadInput(
                f"graph_sparsity is {self.graph_sparsity}; it must be at least 0 and below 1"
            )
        if not 0 < self.data_fraction <= 1:
            raise BadInput(f"data_fraction is {self.data_fraction}; it must be in (0, 1]")
        if self.max_length is not None and self.max_length < 8:
            raise BadInput(f"max_length is {self.max_length}; it must be at least 8 tokens")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise BadInput(f"seeds are {list(self.seeds)}; give at least one, each once")
        if len(set(self.controls)) != len(self.controls):
            raise BadInput(f"controls are {list(self.controls)}; give each once")
        for control in self.controls:
            registry.check("controls", control)
        check_choices(self, "")
        if isinstance(self.controls_at, str) and self.controls_at not in ("all", "last"):
            raise unknown("controls_at", self.controls_at, ("all", "last"))
        check_choices(self.finder, "finder.")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise BadInput(f"epochs is {self.epochs}; it must be above 0")
        # With epochs the iterations are known with the task: `experiment.resolved` comes back here.
        if (rewind := getattr(self.finder, "rewind", None)) and self.epochs is None:
            Rewind.parse(rewind, self.training.iterations)

    @property
    def density(self) -> Fraction:
        """Kept share at the last level, exact: sparsity 0.9 is density 1/10."""
        return 1 - Fraction(str(self.sparsity))

    @property
    def title(self) -> str:
        """The name, or model and task where there is none."""
        return self.name or f"{self.model} on {self.task}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; the finder carries its registered name."""
        plain = asdict(self)
        plain["finder"] = {"name": finder_name(self.finder), **plain["finder"]}
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Read what :meth:`to_dict` returned.

        Raises:
            BadInput: an unknown field or finder.
        """
        data = dict(data)
        if "finder" in data:
            rest = dict(data["finder"])
            data["finder"] = build(registry.find("finders", rest.pop("name", "imp")), rest)
        if "training" in data:
            data["training"] = build(Training, data["training"])
        recipe: Recipe = build(cls, data)
        return recipe


@cache
def _choices(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Return field -> allowed values, of the fields that are a Literal."""
    try:
        hints = get_type_hints(kind)
    except NameError:  # a finder of the user's own may import names for type checkers only
        return {}
    literal = {f.name for f in fields(kind) if get_origin(hints[f.name]) is Literal}
    return {name: get_args(hints[name]) for name in literal}


def check_choices(values: Any, prefix: str) -> None:
    """Assert that every Literal field of a dataclass holds one of its values.

    The command line's parser has checked that already; Python callers and plain data have not.

    Raises:
        BadInput: one does not; the message has the nearest ones.
    """
    kind: Any = type(values)
    for name, allowed in _choices(kind).items():
        if getattr(values, name) not in allowed:
            raise unknown(f"{prefix}{name}", getattr(values, name), map(str, allowed))


def build(kind: type, values: dict[str, Any]) -> Any:
    """Make a dataclass from plain data; lists become tuples.

    Raises:
        BadInput: a field does not exist; the message has the nearest names.
    """
    known = {f.name for f in fields(kind)}
    for key in values:
        if key not in known:
            raise unknown(f"field of {kind.__name__}", key, known)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def finder_name(finder: Finder) -> str:
    """Return the name a finder is registered under."""
    for name in registry.names("finders"):
        if registry.find("finders", name) is type(finder):
            return name
    raise BadInput(f"finder {type(finder).__name__} is not registered")


def shipped() -> dict[str, Path]:
    """Return the recipes that come with the package: name -> file."""
    from importlib.resources import files

    folder = files("lth_zoo.tasks.recipes")
    return {Path(str(f)).stem: Path(str(f)) for f in folder.iterdir() if f.name.endswith(".yaml")}


def recipe_file(name: str) -> Path:
    """Return the file of a shipped recipe, or of one of the user's own by path.

    Raises:
        BadInput: neither exists.
    """
    known = shipped()
    if name in known:
        return known[name]
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise BadInput(f"recipe file {name!r} does not exist")
        return Path(name)
    raise unknown("recipe", name, known)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        BadInput: not valid YAML, or no mapping.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds no mapping of names to values")
    return data
