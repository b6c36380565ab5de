"""What undeploy may take away, and what status calls left over."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao2serve.errors import InputError, UsageError
from tao2serve.identity import Holder, holder
from tao2serve.registry.operations import OperationRecord
from tao2serve.serving.inventory import Inventory, read_folders, read_model_name
from tao2serve.serving.judgement import judge
from tao2serve.serving.names import endpoint_and_version
from tao2serve.serving.removal import Removal, RemovalPlan, decide_removal
from tao2serve.serving.state import Registered, Route, ServiceState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GONE = Holder(user="u", host="h", place=holder().place, pid=2**22 + 1, identity="none")
MARK = "0123abcd"  # of the hidden folders of this service
PARTS = ("", "_preprocess", "_detector", "_postprocess")


def deploy_of(
    version: int, *, endpoint: str = "street", running: bool = False, by: Holder | None = None
) -> OperationRecord:
    return OperationRecord(
        task_id=f"deploy-{endpoint}-{version}", kind="deploy", endpoint=endpoint,
        status="in_progress" if running else "completed", created=NOW, last_update=NOW, holder=by or holder(),
        properties={"version": str(version), "model": f"model-{version}"},
    )  # fmt: skip


def inventory_of(
    *, registered: tuple[int, ...] = (), routes: tuple[Route, ...] = (), deployed: tuple[int, ...] = (),
    folders: tuple[str, ...] = (), loaded: tuple[str, ...] = (), elsewhere: tuple[str, ...] = (),
    running: tuple[int, ...] = (),
) -> Inventory:  # fmt: skip
    urls = [f"street/{version}" for version in registered]
    return Inventory(
        state=ServiceState(
            endpoints={url: Registered(url=url) for url in urls}, routes={route.name: route for route in routes}
        ),
        operations=[*(deploy_of(version) for version in deployed if version not in running),
                    *(deploy_of(version, running=True) for version in running)],
        folders=frozenset(folders), on_triton=dict.fromkeys(loaded, True), elsewhere=frozenset(elsewhere),
        mark=MARK, now=NOW,
    )  # fmt: skip


def alias(*weights: tuple[int, float], name: str = "street") -> Route:
    return Route(
        name=name, urls=tuple(f"street/{version}" for version, _ in weights), weights=tuple(w for _, w in weights)
    )


VERSIONS = st.integers(1, 5)
NAMES = st.one_of(
    st.builds(lambda version, part: f"street_{version}{part}", VERSIONS, st.sampled_from(PARTS)),
    st.builds(
        lambda version, part, mark: f".street_{version}{part}.{mark}ab12_xyz",
        VERSIONS,
        st.sampled_from(PARTS),
        st.sampled_from([f"of-{MARK}.", "of-ffffffff.", ""]),
    ),
    st.sampled_from(["cars_1", "other", "street", "street_1_old", ".trash"]),
)
ROUTE = st.one_of(
    st.none(),
    st.builds(
        lambda pairs, name: alias(*pairs.items(), name=name),
        st.dictionaries(VERSIONS, st.sampled_from([0.0, 0.5, 1.0]), min_size=1), st.sampled_from(["street", "cars"]),
    ),
)  # fmt: skip
SETS = st.sets(VERSIONS).map(tuple)
INVENTORIES = st.builds(
    lambda registered, routes, deployed, folders, loaded, elsewhere, running: inventory_of(
        registered=tuple(sorted(registered)), routes=tuple({r.name: r for r in routes if r}.values()),
        deployed=deployed, folders=tuple(folders), loaded=tuple(n for n in loaded if n[0] != "."),
        elsewhere=tuple(f"street_{version}" for version in elsewhere), running=running,
    ),
    SETS, st.lists(ROUTE, max_size=2), SETS, st.sets(NAMES), st.sets(NAMES), st.sets(VERSIONS, max_size=1),
    st.sets(VERSIONS, max_size=1).map(tuple),
)  # fmt: skip
WANTED: st.SearchStrategy[Removal] = st.one_of(st.sampled_from(["old", "all"]), VERSIONS)


def after(inventory: Inventory, plan: RemovalPlan) -> Inventory:
    """The world once a plan is carried out."""
    gone = {f"{plan.endpoint}/{version}" for version in plan.versions}
    state = inventory.state
    return replace(
        inventory,
        state=ServiceState(
            endpoints={url: entry for url, entry in state.endpoints.items() if url not in gone},
            routes={name: r for name, r in state.routes.items() if not (plan.drops_route and name == plan.endpoint)},
        ),
        folders=(inventory.folders or frozenset()) - set(plan.folders),
        on_triton={name: True for name in inventory.on_triton or {} if name not in plan.unload},
    )


@settings(max_examples=400, deadline=None)
@given(INVENTORIES, WANTED)
def test_nothing_goes_that_is_used_or_not_known_to_be_ours(inventory: Inventory, wanted: Removal) -> None:
    """Whatever the world looks like: no routed version, no model of one that stays, nothing of others, no freeze."""
    try:
        plan = decide_removal(inventory, "street", wanted)
    except (InputError, UsageError):
        return
    state, later = inventory.state, after(inventory, plan)
    routed = {url for url, names in state.routed_urls().items() if wanted != "all" or names != ("street",)}
    assert not routed & {f"street/{version}" for version in plan.versions}
    assert set(later.state.frozen_by()) <= set(state.frozen_by())
    made = {version for _, version in inventory.deployed()}
    busy = {version for _, version in inventory.busy()}
    for text in {*plan.unload, *plan.folders}:
        name = read_model_name(text)
        assert name is not None
        assert name.endpoint == "street"
        assert name.version not in busy
        if name.is_hidden:
            assert name.mark == MARK
            continue
        assert name.version in made
        assert f"street_{name.version}" not in inventory.elsewhere
        assert f"street/{name.version}" not in later.state.endpoints
    assert not {f"street_{version}" for version in state.versions("street")} & set(plan.unload) - {
        f"street_{version}" for version in plan.versions
    }


@settings(max_examples=200, deadline=None)
@given(INVENTORIES, st.sampled_from(["old", "all"]))
def test_a_second_run_has_nothing_left_to_do(inventory: Inventory, wanted: Removal) -> None:
    """Carried out once, the same wish removes nothing more; `all` finds the endpoint gone."""
    try:
        plan = decide_removal(inventory, "street", wanted)
    except (InputError, UsageError):
        return
    try:
        again = decide_removal(after(inventory, plan), "street", wanted)
    except InputError:
        return
    except UsageError as error:
        pytest.fail(str(error))
    assert again.is_empty


@pytest.mark.parametrize("cut", range(5))
def test_a_run_that_was_cut_off_is_finished_by_the_next(cut: int) -> None:
    """After the alias, the endpoints, the first model or all of them: what is left of it goes."""
    world = inventory_of(
        registered=(1,), routes=(alias((1, 1.0)),), deployed=(1,), folders=("street_1", "street_1_detector"),
        loaded=("street_1", "street_1_detector"),
    )  # fmt: skip
    plan = decide_removal(world, "street", "all")
    parts = [
        replace(plan, versions=(), unload=(), folders=()),
        replace(plan, unload=(), folders=()),
        replace(plan, unload=plan.unload[:1], folders=()),
        replace(plan, folders=()),
        replace(plan, folders=plan.folders[:1]),
    ]
    later = after(world, parts[cut])
    rest = decide_removal(later, "street", "all")
    assert not rest.is_empty
    end = after(later, rest)
    assert not end.names()
    assert not end.state.endpoints


def test_an_ensemble_is_unloaded_before_its_parts() -> None:
    """Nothing may still pass on to a part that is gone."""
    names = tuple(f"street_1{part}" for part in PARTS)
    plan = decide_removal(
        inventory_of(registered=(1, 2), routes=(alias((2, 1.0)),), deployed=(1,), folders=names, loaded=names),
        "street", 1,
    )  # fmt: skip
    assert plan.unload[0] == plan.folders[0] == "street_1"
    assert set(plan.unload) == set(plan.folders) == set(names)


def test_a_version_with_requests_stays_and_the_error_says_how() -> None:
    """Exit 2, naming promote and --all."""
    world = inventory_of(registered=(1, 2), routes=(alias((1, 0.9), (2, 0.1)),), deployed=(1, 2))
    with pytest.raises(UsageError, match="street/2") as caught:
        decide_removal(world, "street", 2)
    assert "promote" in caught.value.hint
    assert "--all" in caught.value.hint


def test_an_endpoint_that_another_alias_names_is_not_removed_whole() -> None:
    """Its requests come from somewhere else, which must be mended first."""
    world = inventory_of(registered=(1,), routes=(alias((1, 1.0)), alias((1, 1.0), name="cars")))
    with pytest.raises(UsageError) as caught:
        decide_removal(world, "street", "all")
    assert "cars" in caught.value.evidence


def test_versions_without_an_alias_are_not_guessed_to_be_old() -> None:
    """Any of them may be asked by its own url."""
    with pytest.raises(UsageError, match="no alias"):
        decide_removal(inventory_of(registered=(1, 2)), "street", "old")


def test_a_version_of_somebody_elses_making_is_unregistered_and_its_folder_left() -> None:
    """`clearml-serving model add` may have registered it, with models that a user wrote."""
    world = inventory_of(
        registered=(1, 2), routes=(alias((2, 1.0)),), deployed=(2,), folders=("street_1",), loaded=("street_1",)
    )
    plan = decide_removal(world, "street", 1)
    assert plan.versions == (1,)
    assert not plan.unload
    assert not plan.folders
    assert "street_1 stays" in plan.left[0]


@pytest.mark.parametrize(("wanted", "kind"), [("old", InputError), ("all", InputError), (3, InputError)])
def test_an_endpoint_that_is_not_there_is_an_error(wanted: Removal, kind: type[Exception]) -> None:
    """Exit 3, with those that are."""
    with pytest.raises(kind) as caught:
        decide_removal(replace(inventory_of(registered=(1,), routes=(alias((1, 1.0)),))), "cars", wanted)
    assert "street" in caught.value.evidence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("street_3", ("street", 3, "", False)),
        ("a_1_2_detector", ("a_1", 2, "_detector", False)),
        (".street_3.ab_12xyz", ("street", 3, "", True)),
        ("..street_3_detector.ab_12xyz.00000000", ("street", 3, "_detector", True)),
    ],
)
def test_names_of_models_are_read(text: str, expected: tuple[str, int, str, bool]) -> None:
    """Version, part of an ensemble, half-written."""
    name = read_model_name(text)
    assert name is not None
    assert (name.endpoint, name.version, name.part, name.is_hidden) == expected


@pytest.mark.parametrize("text", ["street", "street_x", "street_3_old", ".git", "3_3", "straße_3", ".street_3"])
def test_other_names_are_not_ours_to_read(text: str) -> None:
    """A user's own models and folders."""
    assert read_model_name(text) is None


def test_links_and_files_are_no_folders_of_ours(tmp_path: Path) -> None:
    """A link may lead anywhere; a repository that is not known or not there has no list."""
    (tmp_path / "street_1").mkdir()
    (tmp_path / "street_2").symlink_to(tmp_path / "street_1")
    (tmp_path / "street_3").write_text("")
    assert read_folders(tmp_path) == {"street_1"}
    assert read_folders(tmp_path / "none") is None
    assert read_folders(None) is None


def test_what_the_controller_loaded_is_not_ours_to_unload() -> None:
    """Registered or left over, it stays on Triton, and no command is named that would be refused there."""
    world = inventory_of(
        registered=(2, 3, 4), routes=(alias((4, 1.0)),), deployed=(1, 2, 3, 4),
        loaded=("street_1", "street_2", "street_3", "street_4"), folders=("street_1", "street_2"),
    )  # fmt: skip
    assert decide_removal(world, "street", "old").unload == ("street_1", "street_2", "street_3")
    first, *others = world.operations
    noted = replace(first, properties={**first.properties, "managed": "true"})
    # Auxiliary config is for the controller, whoever registered it.
    entries = {**world.state.endpoints, "street/2": Registered(url="street/2", is_managed=True)}
    managed = replace(world, operations=[noted, *others], state=replace(world.state, endpoints=entries))
    plan = decide_removal(managed, "street", "old")
    assert plan.versions == (2, 3)
    assert (plan.unload, plan.folders) == (("street_3",), ())
    assert plan.left == ("street_2 stays: ClearML Serving's own controller owns it",)
    assert not [name for name in managed.orphans() if name.version == 1]
    # A later deployment, for a Triton of ours, took the number of one that was killed.
    taken = replace(world, operations=[*world.operations, noted])
    assert "street_1" in decide_removal(taken, "street", "old").unload


def test_notes_name_what_is_left_over_and_what_mends_it() -> None:
    """Orphans with the command, strangers without one, the dead run too; JSON can hold all of it."""
    dead = replace(deploy_of(4, running=True), holder=GONE)
    world = inventory_of(
        registered=(2,), routes=(alias((2, 1.0)),), deployed=(1, 2, 3), folders=("street_1", "street_2", "street_9"),
        loaded=("street_2", "street_3"),
    )  # fmt: skip
    world = replace(world, operations=[dead, *world.operations])
    notes = judge(world, (), only="", instances=(), inference_is_there=True, triton_is_there=True, managed=False)
    found = {(note.kind, note.subject): note for note in notes}
    assert "tao2serve undeploy street/1" in found["orphan", "street_1"].mend
    assert "a folder of ours" in found["orphan", "street_1"].fact
    assert "a loaded model of ours" in found["orphan", "street_3"].fact
    assert found["stranger", "street_9"].mend == ""
    assert ("dead-operation", "deploy street") in found
    assert not any(note.subject == "street_2" for note in notes)
    json.dumps([asdict(note) for note in notes])
    assert not judge(
        world, (), only="cars", instances=(), inference_is_there=True, triton_is_there=True, managed=False
    )[1:]


def test_a_route_that_freezes_comes_first() -> None:
    """It stops every endpoint, so nothing matters more."""
    world = inventory_of(registered=(1,), routes=(alias((1, 0.0), (2, 1.0)),))
    first = judge(world, (), only="", instances=(), inference_is_there=False, triton_is_there=False, managed=False)[0]
    assert first.kind == "frozen"


@pytest.mark.parametrize("text", list(itertools.chain(["street/", "street/x", "street/-1", "street/1/2", "street/²"])))
def test_only_a_number_is_a_version(text: str) -> None:
    """Exit 2."""
    with pytest.raises(UsageError):
        endpoint_and_version(text)
    assert endpoint_and_version("street/12") == ("street", 12)


def test_what_a_tuning_left_is_ours_and_what_one_serves_with_is_busy() -> None:
    """All versions that it noted, not only the first: of one that ended they are left over, of one that runs in use."""

    def tuning(*, running: bool) -> Inventory:
        record = replace(deploy_of(4, running=running), kind="tune", properties={
            "version": "4", "tried": "4,5", "model": "model-1",
        })  # fmt: skip
        folders = ("street_1", "street_4", "street_5_detector", "street_6")
        return replace(inventory_of(registered=(1,), deployed=(1,), folders=folders), operations=[record])

    assert {name.version for name in tuning(running=False).orphans()} == {4, 5}
    assert {name.version for name in tuning(running=False).strangers()} == {6}
    assert tuning(running=True).busy() == {("street", 4), ("street", 5)}
    assert not tuning(running=True).orphans()
