from __future__ import annotations

from pathlib import Path

import pytest

from bench.workloads.trace import Trace
from bench.workloads.trace_file import Doing, parse_day, read_day
from scalesim_client.codec import pack_event
from scalesim_client.events import ActivityStarted, AgentMoved

NAMES = ("安", "柏", "晨", "东", "恩", "方", "谷")
REPORT = """# 基础人设

{personas}

# 20240213-06:00

## 活动记录：

{first}

# 20240213-06:10

## 活动记录：

### 安
位置：the Ville，学校，教室，讲台
活动：备课

### 柏
位置：the Ville，学校，教室，座位
活动：听课

## 对话记录：

### 柏 -> 晨 @ the Ville，学校，教室，座位

`柏`
> 早上好。

# 20240213-06:20

## 活动记录：

{last}
"""


def records(activity: str) -> str:
    return "\n\n".join(
        f"### {name}\n位置：the Ville，{name}家，卧室，床  \n活动：{activity}  " for name in NAMES
    )


@pytest.fixture
def report(tmp_path: Path) -> Path:
    personas = "\n\n".join(f"## {name}\n\n年龄：2{i}岁  \n先天：好奇" for i, name in enumerate(NAMES))
    path = tmp_path / "day.md"
    path.write_text(REPORT.format(personas=personas, first=records("睡觉"), last=records("吃饭")))
    return path


def test_reads_personas_places_activities_and_talks(report: Path) -> None:
    day = read_day(report)
    assert list(day.personas) == list(NAMES)
    assert day.personas["柏"] == "年龄：21岁  \n先天：好奇"
    assert [slot.time for slot in day.slots] == ["06:00", "06:10", "06:20"]
    assert day.slots[1].doing["安"] == Doing(("the Ville", "学校", "教室", "讲台"), "备课")
    assert day.slots[1].doing["方"] == day.slots[0].doing["方"]
    assert day.slots[1].talks == (("柏", "晨"),)


def test_refuses_what_is_no_report() -> None:
    with pytest.raises(ValueError, match="no personas"):
        parse_day("# something else\n")
    with pytest.raises(ValueError, match="differ"):
        parse_day("## 安\n\n年龄\n\n# 20240213-06:00\n\n### 柏\n位置：a，b\n活动：c\n")


def test_changed_activities_and_talks_call_at_most_a_fifth_at_once(report: Path) -> None:
    trace = Trace(report, count=10)
    steps = list(trace.steps())
    assert [step.now for step in steps] == list(range(1, 11))
    assert all(len(step.calls) <= 1 for step in steps)
    calls = [(call.agent, call.cause) for step in steps for call in step.calls]
    assert calls[:3] == [("安", "activity"), ("柏", "interaction"), ("晨", "interaction")]
    assert sorted(agent for agent, _ in calls[3:]) == sorted(NAMES)
    assert list(trace.steps()) == steps


def test_a_talk_does_not_end_the_planned_activity(report: Path) -> None:
    trace = Trace(report, count=10)
    steps = list(trace.steps())
    called = {(call.agent, step.now) for step in steps for call in step.calls if call.cause == "activity"}
    planned = {e.agent: e.until for e in trace.opening if isinstance(e, ActivityStarted)}
    assert planned["安"] == 1.0
    assert ("晨", planned["晨"]) in called
    assert planned["晨"] != 3.0


def test_whoever_talks_has_set_out_before(report: Path) -> None:
    steps = list(Trace(report, count=10).steps())
    (walk,) = steps[1].before
    assert isinstance(walk, AgentMoved)
    assert (walk.agent, walk.place) == ("柏", None)
    assert walk.destination is not None
    for step in steps:
        for event in (*step.before, *step.after):
            pack_event(event)
