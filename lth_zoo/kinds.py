"""What each kind of job does: ``KINDS[job.kind](session)``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from . import registry
from .altered import with_random_labels, with_random_pixels
from .best import Best
from .carry import in_step, tied
from .compact import Plan, expand, made_compact, narrow
from .controls import Draft
from .errors import BadInput, Diverged, StoreError, unknown
from .formats import dump_tensors
from .hooks import Hook
from .masks import Masks
from .norm_interpolation import interpolated
from .protocols import Split, Task
from .recipe import Training, build
from .rewind import Snapshot, clone_state
from .seeds import generator, reordered, seeded
from .session import IMAGES, LOG, MASKS, RESULT, STATE, Session
from .signs import Signs
from .store import Entry
from .strong import Settle, finish, lay
from .train import Loop
from .watch import Watch, tracker


def execute(session: Session) -> Entry:
    """Run a claimed job and commit its result."""
    session.store.clear(session.folder)
    work, _ = kind_of(session.job.kind)
    work(session)
    return session.store.commit(session.job, session.written, session.record())


def kind_of(kind: str) -> tuple[Callable[[Session], None], tuple[str, ...]]:
    """Return what a kind of job does, and the files other jobs may read of it.

    Raises:
        BadInput: no such kind.
    """
    if kind not in KINDS:
        raise unknown("kind of job", kind, KINDS)
    work, files = KINDS[kind]
    return (registry.load(work) if isinstance(work, str) else work), files


def outputs(job: Any) -> tuple[str, ...]:
    """Return the files that other jobs may read of this one."""
    if job.kind == "train":
        return (RESULT,) if job.config["keep"] == "metrics" else (RESULT, STATE)
    if job.kind == "carry":
        return (MASKS,) if job.config["changes"] == "masks" else (MASKS, STATE)
    if job.kind == "control":
        return {"masks": (MASKS,), "start": (STATE,)}.get(job.config["changes"], (MASKS, STATE))
    return KINDS[job.kind][1] if job.kind in KINDS else ()


# -- init ----------------------------------------------------------------------------------


def init(session: Session) -> None:
    """Draw a model's initial state."""
    config = session.config
    with seeded(config["seed"], "init", *([config["draw"]] if config["draw"] else [])):
        model = session.adapter.build(config["model"], session.task.signature)
    state = clone_state(model)
    if "pretrained" in session.job.inputs:
        known = session.snapshot("pretrained").state
        state |= {n: t for n, t in known.items() if n in state and t.shape == state[n].shape}
    session.write_start(Snapshot(state))


def graft(session: Session) -> None:
    """Put the output head (or a named part) of one state on another; its optimiser starts anew."""
    start, other = session.snapshot("start"), session.snapshot("head").state
    model = session.build()
    if part := session.config.get("part"):
        head = frozenset(n for n in start.state if n.startswith(f"{part}."))
    else:
        head = session.adapter.head(model)
    head = head - tied(model, head).keys()  # an output matrix that is the embedding is no head
    optimizer = {
        name: tensor
        for name, tensor in start.optimizer.items()
        if name.rpartition("/")[0].partition(":")[2] not in head
    }
    state = {n: other[n] if n in head else t for n, t in start.state.items()}
    average = {n: t for n, t in start.average.items() if n not in head}
    session.write_start(replace(start, state=state, optimizer=optimizer, average=average))


# -- train ---------------------------------------------------------------------------------


def train(session: Session) -> None:
    """Train from a state, under masks if there are any; measure at the end.

    With ``compact`` the module is without what masks prune whole; results are of the whole one.
    """
    config, model, masks = session.config, session.build(), session.masks("masks")
    plan, about = Plan({}, masks), dict[str, Any]()
    if config.get("compact"):
        model, plan, about = made_compact(model, masks, session.adapter.units(model))
    # A rewind point is a place on the way, whatever the result of a whole training is.
    best = config["keep"] != "snapshot" and config["training"].get("result") == "best"
    hooks: list[Hook] = [Best()] if best else []
    if batches := config.get("settle"):
        own = config.get("settle_by") == "loss"
        hooks.append(Settle(session.task if own else session.task.matched(), batches))
    if signs := config.get("signs"):
        hooks.append(Signs(signs, _signed(session, model, plan.masks)))
    loop = trained(session, model, partial(start_of, session, plan), hooks, plan.masks)
    session.write_json(_measure(loop, config) | about)
    if config["keep"] != "snapshot":
        _show(session, loop)
    if config["keep"] == "weights":
        session.write_state(Snapshot(expand(loop.final_state(), plan), loop.iteration))
    elif config["keep"] == "snapshot":
        snapshot = loop.snapshot()
        del snapshot.extra["rows"], snapshot.extra["losses"]
        session.write_state(snapshot)


def _signed(session: Session, model: nn.Module, masks: Masks | None) -> set[str]:
    """Return what a job trains the signs of: all that is masked, but a head that is trained."""
    assert masks is not None, "signs are of survivors"
    own = session.adapter.head(model) if session.config["signs"]["head"] == "trained" else ()
    return masks.weights.keys() - set(own)


def trained(
    session: Session,
    model: nn.Module,
    start: Callable[[], Snapshot | None],
    hooks: Sequence[Hook] = (),
    masks: Masks | None = None,
    task: Task | None = None,
    **options: Any,
) -> Loop:
    """Train a model as a job's config says, from its last checkpoint or ``start``; keep the curve.

    Masks of a graph's edges are not the loop's: the task deals the graph that is left.
    ``order`` of the config, where it is there, draws the noise of the training anew.
    ``task`` is given where it is not :func:`learned`; ``options`` are the loop's own: groups.
    """
    config, resumed = session.config, session.resume()
    if resumed is not None:
        for hook in hooks:
            hook.restore(resumed)
    loop = Loop(
        model,
        task or learned(session, masks),
        build(Training, dict(config["training"])),
        seed=reordered(config["seed"], config.get("order", 0)),
        masks=masks,
        start=resumed or start(),
        end=config["end"],
        hooks=[*hooks, Watch(session), *tracker(session)],
        device=session.execution.device,
        **options,
    )
    loop.begin = session.begin
    try:
        loop.run()
    except Diverged as error:
        kept = resumed.iteration if (resumed := session.resume()) else loop.begin
        raise Diverged(f"{error}; the last good state is of iteration {kept}") from error
    session.write(LOG, "".join(json.dumps(row) + "\n" for row in loop.rows).encode())
    return loop


def learned(session: Session, masks: Masks | None = None) -> Task:
    """Return the task a job trains on, on what masks leave of its graph.

    That is its own, or with permuted labels (and pixels) in a corrupted search: those of the
    graph that is left; or with losses that a teacher has a part in, or under norms that fade.
    """
    task = restricted(session.task, masks)
    if labels := session.config.get("labels"):
        task = with_random_labels(task, session.config["seed"])
        if labels == "random-pixels":
            task = with_random_pixels(task, session.config["seed"])
    elif "teacher" in session.job.inputs:
        teacher = session.build()
        teacher.load_state_dict(session.snapshot("teacher").state)
        task = task.taught(teacher)
    return interpolated(task) if session.config.get("norms") == "interpolate" else task


def restricted(task: Task, masks: Masks | None) -> Task:
    """Return the task on what masks leave of its graph; the task itself where they cover none.

    Raises:
        BadInput: the masks are of another graph, or the task has none.
    """
    if masks is None or not masks.data:
        return task
    graph = task.graph()
    if graph is None:
        raise BadInput(f"task {task.name!r} has no graph, but the masks cover {list(masks.data)}")
    return task.on_graph(graph.restricted(masks.data))


def _show(session: Session, loop: Loop) -> None:
    """Write the pictures that a task takes of a trained model, if it takes any."""
    with loop.averaged():
        found = loop.task.pictures(loop.model)
    if found:
        session.write(IMAGES, dump_tensors(found, {}))


def start_of(session: Session, plan: Plan) -> Snapshot:
    """Return what a job's training starts from, narrowed to a plan."""
    start = narrow(session.snapshot("start"), plan)
    if session.config["fresh_optimizer"]:
        start = Snapshot(start.state)
    return replace(start, iteration=session.begin)


def _measure(loop: Loop, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's result; the test part is read here, once, by whole trainings only."""
    splits: tuple[Split, ...] = ("validation", "test")
    if config["keep"] == "snapshot":
        splits = ("validation",)
    best = min(loop.rows, key=lambda row: row["validation_loss"], default={})
    with loop.averaged():
        flags = list(loop.task.flags(loop.model))
    masks = loop.masks
    if masks is not None and (names := [n for n, c in masks.weights.counts.items() if not c[0]]):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        flags.append(f"collapsed-layer: {', '.join(names[:3])}{more}")
    if masks is not None and any(kept == 0 for kept, _ in masks.data.counts.values()):
        flags.append("no-edges")
    return {
        "metrics": {split: loop.evaluate(split) for split in splits},
        "early_stop": best.get("iteration", loop.iteration),
        "iterations": loop.end - loop.begin,
        "flags": flags,
        "parameters": sum(p.numel() for p in loop.model.parameters()),
        "masks": masks.counts if masks is not None else {},
    }


# -- control -------------------------------------------------------------------------------


def control(session: Session) -> None:
    """Destroy one ingredient of a ticket."""
    config = session.config
    masks = session.masks("masks")
    if masks is None:
        raise StoreError(f"{session.job.label} has no masks")
    start = session.snapshot("start")
    draft = Draft(
        masks,
        start.state,
        fresh=lambda: _fresh(session, masks),
        trained=lambda: session.snapshot("trained").state,
        order=lambda: tuple(session.adapter.prunable(session.build())),
        initial=lambda: session.snapshot("init").state,
    )
    changed = registry.find("controls", config["name"])(draft, config["seed"])
    if config["changes"] != "start":
        session.write_masks(changed.masks)
    if config["changes"] != "masks":
        # A new start has no past: its optimiser and generators begin anew.
        state = in_step(session.build(), start.state, changed.state)
        session.write_state(Snapshot(state, start.iteration))


def _fresh(session: Session, masks: Masks) -> dict[str, Tensor]:
    config = session.config
    with seeded(config["seed"], "init", "control", config["name"]):
        model: nn.Module = session.adapter.build(config["model"], session.task.signature)
        session.adapter.reset(model, config["model"], session.task.signature)
    every = session.adapter.prunable(model) | session.adapter.optional(model)
    covered = {n: every[n] for n in every if n in masks}
    rng = generator(config["seed"], "init", "control", config["name"], "weights")
    lay(model, covered, config.get("weights"), masks.density, rng)
    finish(model, masks.weights, config.get("finish"))
    return clone_state(model)


#: kind -> what it does (or where that is found), and the files other jobs may read of it
KINDS: dict[str, tuple[Callable[[Session], None] | str, tuple[str, ...]]] = {
    "init": (init, (STATE,)),
    "train": (train, (RESULT, STATE)),
    "prune": ("lth_zoo.pruning:prune", (MASKS,)),
    "rounds": ("lth_zoo.searches.rounds:rounds_job", (MASKS,)),
    "control": (control, (MASKS, STATE)),
    "graft": (graft, (STATE,)),
    "signs": ("lth_zoo.searches.sign_transfer:signs_job", (STATE,)),
    "carry": ("lth_zoo.carry:carry", (MASKS, STATE)),
    "elastic": ("lth_zoo.searches.elastic:elastic_job", (MASKS, STATE)),
    "learn": ("lth_zoo.searches.learn:learn", (MASKS, STATE)),
    "supermask": ("lth_zoo.searches.supermask_search:supermask_job", (MASKS, STATE)),
    "units": ("lth_zoo.searches.structured:units_job", (MASKS,)),
    "soup": ("lth_zoo.searches.soup:soup_job", (MASKS, STATE)),
    "early-bird": ("lth_zoo.searches.early:early_job", (MASKS, STATE)),
    "channels": ("lth_zoo.searches.channels:channels_job", (MASKS, STATE)),
    "concrete": ("lth_zoo.searches.concrete:concrete_job", (MASKS, STATE)),
    "gates": ("lth_zoo.searches.gate_search:gates_job", (MASKS, STATE)),
    "denoise": ("lth_zoo.searches.denoise:denoise_job", (MASKS, STATE)),
    "scorer": ("lth_zoo.searches.scorer_search:scorer_job", (MASKS, STATE)),
    "inform": ("lth_zoo.searches.inform:inform_job", (MASKS, STATE)),
    "trace": ("lth_zoo.searches.traces:trace_job", (STATE,)),
    "overlap": ("lth_zoo.probes.overlap:overlap_job", (RESULT,)),
    "fid": ("lth_zoo.probes.inception:fid_job", (RESULT,)),
    "attack": ("lth_zoo.probes.robustness:attack_job", (RESULT,)),
    "attack-transfer": ("lth_zoo.probes.robustness:transfer_job", (RESULT,)),
    "integrity": ("lth_zoo.probes.soundness:integrity_job", (RESULT,)),
    "paths": ("lth_zoo.probes.soundness:paths_job", (RESULT,)),
    "head": ("lth_zoo.probes.heads:head_job", (RESULT,)),
    "noise": ("lth_zoo.probes.noise:noise_job", (STATE,)),
    "dynamic": ("lth_zoo.searches.dynamic:dynamic_job", (MASKS, STATE)),
    "subset-sum": ("lth_zoo.probes.subset_sum:subset_sum_job", (RESULT,)),
    "plant": ("lth_zoo.probes.plant:plant_job", (MASKS,)),
    "line": ("lth_zoo.probes.line:line_job", (RESULT,)),
    "align": ("lth_zoo.probes.align:align_job", (MASKS, STATE)),
}
