"""Ports: defaults, choices, and what is said of those that are taken."""

import os
import socket
from pathlib import Path

import pytest

from sparkpar_assets.embedded import ports
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.state import State


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path)
    state.create()
    return state


def choose(state: State, wish: str) -> dict[str, int]:
    return ports.choose_ports(state, {ports.PORTS_VARIABLE: wish})


def test_a_taken_port_is_named_with_its_owner_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EmbeddedError) as caught:
            ports.check_free({"s3": port})
    assert f"Port {port} (s3) is taken by " in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert "SPARKPAR_PORTS=free" in caught.value.remedy


def test_a_port_that_is_taken_on_all_addresses_is_taken() -> None:
    with socket.create_server(("", 0)) as server:
        assert ports.is_taken(server.getsockname()[1])


def test_without_a_wish_the_ports_are_the_usual_ones_then_those_of_last_time(state: State) -> None:
    assert choose(state, "") == ports.DEFAULT_PORTS
    ports.save_ports(state, ports.DEFAULT_PORTS | {"s3": 9001})
    assert choose(state, "")["s3"] == 9001
    assert choose(state, "default") == ports.DEFAULT_PORTS


def test_free_ports_are_chosen_once_and_then_stay(state: State) -> None:
    chosen = choose(state, "free")
    assert len(set(chosen.values())) == len(ports.DEFAULT_PORTS)
    ports.save_ports(state, chosen)
    assert choose(state, "free") == chosen


def test_of_the_ports_of_last_time_those_that_others_took_are_chosen_anew(state: State) -> None:
    chosen = choose(state, "free")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports.save_ports(state, chosen | {"s3": taken})
        again = choose(state, "free")
    assert again.pop("s3") != taken
    assert again == {name: port for name, port in chosen.items() if name != "s3"}


def test_single_ports_can_be_chosen(state: State) -> None:
    chosen = choose(state, "s3=9100,dagster=3100")
    assert chosen == ports.DEFAULT_PORTS | {"s3": 9100, "dagster": 3100}


@pytest.mark.parametrize("wish", ["s4=9100", "s3", "s3=x", "s3=70000"])
def test_a_wish_that_cannot_be_read_is_explained(state: State, wish: str) -> None:
    with pytest.raises(EmbeddedError, match="is not NAME=PORT"):
        choose(state, wish)
