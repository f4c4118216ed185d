# SPDX-License-Identifier: Apache-2.0
"""Every transition of perception_node's lifecycle, over DDS."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from lifecycle_msgs.msg import State, Transition
from station import Station, change, cloud, set_parameter, state
from street_scene import street


def test_every_lifecycle_transition(ros, tiny_model):
    parameters = {"model": str(tiny_model), "autostart": False}
    with ros.start("perception_node", parameters, {"~/input": "/points"}) as process:
        assert state(ros) == State.PRIMARY_STATE_UNCONFIGURED
        assert not change(ros, Transition.TRANSITION_ACTIVATE)
        for _ in range(2):  # and once more, after a clean-up
            assert change(ros, Transition.TRANSITION_CONFIGURE)
            assert state(ros) == State.PRIMARY_STATE_INACTIVE
            assert ros.node.count_subscribers("/points") == 0  # nothing is received while inactive
            for stamp in (1, 2):
                assert change(ros, Transition.TRANSITION_ACTIVATE)
                assert state(ros) == State.PRIMARY_STATE_ACTIVE
                assert Station(ros).connect().ask(cloud(street(), stamp)).width >= 2
                assert change(ros, Transition.TRANSITION_DEACTIVATE)
                assert state(ros) == State.PRIMARY_STATE_INACTIVE
            assert change(ros, Transition.TRANSITION_CLEANUP)
            assert state(ros) == State.PRIMARY_STATE_UNCONFIGURED
        assert change(ros, Transition.TRANSITION_CONFIGURE)
        assert change(ros, Transition.TRANSITION_ACTIVATE)
        assert change(ros, Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert state(ros) == State.PRIMARY_STATE_FINALIZED
        assert process.stop() == 0


@pytest.mark.parametrize(
    "transition", [Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, Transition.TRANSITION_INACTIVE_SHUTDOWN]
)
def test_shutdown_from_the_other_states(ros, tiny_model, transition):
    with ros.start("perception_node", {"model": str(tiny_model), "autostart": False}):
        if transition == Transition.TRANSITION_INACTIVE_SHUTDOWN:
            assert change(ros, Transition.TRANSITION_CONFIGURE)
        assert change(ros, transition)
        assert state(ros) == State.PRIMARY_STATE_FINALIZED


def test_a_bad_model_fails_configuration_and_can_be_corrected(ros, tiny_model, tmp_path):
    with ros.start("perception_node", {"model": str(tmp_path / "nothing"), "autostart": False}):
        assert not change(ros, Transition.TRANSITION_CONFIGURE)
        assert state(ros) == State.PRIMARY_STATE_UNCONFIGURED
        bad = set_parameter(ros, "threads", -3)
        assert not bad.successful and "threads" in bad.reason
        assert set_parameter(ros, "model", str(tiny_model)).successful
        assert change(ros, Transition.TRANSITION_CONFIGURE)
        late = set_parameter(ros, "model", str(tiny_model))
        assert not late.successful and "clean up" in late.reason
