"""Stands in for SkyPilot inside its own Python: the names that sky_side.py calls, and no machines behind them.

Every call is a line of $STAND_IN/calls.jsonl, and this process is named in $STAND_IN/pid. $STAND_IN/world.json says
what there is: "version", "server", "clouds", "offers" (as rows of sky_side.py), and under "answers" what a function
gives at its first, second, ... call; the last one is given ever after. An answer {"raise": KIND, "message": TEXT} is
raised, one {"print": TEXT, "give": ANSWER} printed first, and {"hang": true} never comes.
"""

import contextlib
import enum
import json
import os
import sys
import time
import types
from pathlib import Path

HERE = Path(os.environ["STAND_IN"])
(HERE / "pid").write_text(str(os.getpid()))


def _world():
    """What there is now: a process may be asked again when that has changed."""
    return json.loads((HERE / "world.json").read_text())


def __getattr__(name):
    if name == "__version__":
        return _world()["version"]
    raise AttributeError(name)


def _calls(name):
    path = HERE / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(line)["call"] == name for line in lines)


def _answer(call, default, /, **given):
    """Write the call down; what it gives is a request, to be had by `get`."""
    number = _calls(call)
    with (HERE / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"call": call, **given}) + "\n")
    answers = _world()["answers"].get(call, [default])
    answer = answers[min(number, len(answers) - 1)]

    def give():
        if isinstance(answer, dict) and "print" in answer:
            print(answer["print"], flush=True)
        if isinstance(answer, dict) and "hang" in answer:
            time.sleep(3600)
        if isinstance(answer, dict) and "raise" in answer:
            kind = getattr(exceptions, answer["raise"], None) or getattr(__builtins__, answer["raise"], ValueError)
            raise kind(answer["message"])
        return answer.get("give", default) if isinstance(answer, dict) and "print" in answer else answer

    return give


def get(request):
    return request()


stream_and_get = get

exceptions = types.SimpleNamespace()
for _name in ("ClusterDoesNotExist", "ClusterNotUpError", "ResourcesUnavailableError", "ApiServerConnectionError"):
    setattr(exceptions, _name, type(_name, (Exception,), {}))


class Status(enum.Enum):
    INIT = "INIT"
    UP = "UP"
    STOPPED = "STOPPED"


ClusterStatus = Status
StatusRefreshMode = types.SimpleNamespace(FORCE="FORCE")
_Word = types.SimpleNamespace


class Task:
    def __init__(self, config):
        self.config, self.secrets, self.best_resources = config, {}, None

    @classmethod
    def from_yaml_config(cls, config):
        return cls(config)

    def update_secrets(self, secrets):
        self.secrets |= secrets


class _Machine:
    def __init__(self, row):
        self.cloud, self.region, self.instance_type = row["cloud"], row["region"], row["machine"]
        self.accelerators, self.use_spot, self._price = row["accelerators"], row["spot"], row["usd_per_hour"]

    def get_cost(self, seconds):
        return self._price * seconds / 3600


class Dag(contextlib.AbstractContextManager):
    def __init__(self):
        self.tasks = []

    def add(self, task):
        self.tasks.append(task)

    def __exit__(self, *_):
        return None


def _fitting(task):
    cap = task.config["resources"].get("max_hourly_cost")
    rows = [row for row in _world()["offers"] if cap is None or row["usd_per_hour"] <= cap]
    if not rows:
        raise exceptions.ResourcesUnavailableError("nothing fits")
    return sorted(map(_Machine, rows), key=lambda machine: machine.get_cost(3600))


class _Optimizer:
    @staticmethod
    def optimize(dag, quiet):
        for task in dag.tasks:
            task.best_resources = _fitting(task)[0]


optimizer = types.SimpleNamespace(
    _fill_in_launchable_resources=lambda task, _: ({"asked": _fitting(task)}, None, None), Optimizer=_Optimizer
)
client = types.ModuleType("sky.client")
client.sdk = types.SimpleNamespace(enabled_clouds=lambda: lambda: _world()["clouds"])
sys.modules["sky.client"] = client


def api_info():
    return _Word(version=_world()["server"])


def launch(task, cluster_name, idle_minutes_to_autostop=None, down=False):
    flags = {"idle_minutes_to_autostop": idle_minutes_to_autostop, "down": down}
    made = _answer("launch", 1, cluster=cluster_name, task=task.config, secrets=task.secrets, **flags)
    return lambda: (made(), None)


def tail_logs(cluster, job, follow):
    return _answer("tail_logs", 0, cluster=cluster, job=job)()


def job_status(cluster, job_ids):
    found = _answer("job_status", "SUCCEEDED", cluster=cluster, jobs=job_ids)

    def give():
        word = found()
        return {job_ids[0]: None if word is None else _Word(value=word)}

    return give


def status(cluster_names, refresh):
    found = _answer("status", ["UP"], clusters=cluster_names, refresh=refresh)
    return lambda: [{"status": Status(word)} for word in found()]


def queue(cluster):
    found = _answer("queue", [], cluster=cluster)
    return lambda: [{"job_id": number} for number in found()]


def down(cluster):
    return _answer("down", None, cluster=cluster)


def _jobs_launch(task, name):
    made = _answer("jobs.launch", None, name=name, task=task.config, secrets=task.secrets)
    number = _calls("jobs.launch")
    return lambda: ([made() or number], None)


def _queue_v2(refresh, fields, job_ids=None, name_match=None):
    found = _answer("jobs.queue_v2", [], jobs=job_ids, name=name_match)

    def give():
        rows = [{"recovery_count": 0, "failure_reason": None, **row} for row in found()]
        return [row for row in rows if job_ids is None or row["job_id"] in job_ids], len(rows)

    return give


jobs = types.SimpleNamespace(
    launch=_jobs_launch,
    queue_v2=_queue_v2,
    tail_logs=lambda job_id, follow: _answer("jobs.tail_logs", 0, job=job_id)(),
    cancel=lambda job_ids: _answer("jobs.cancel", None, jobs=job_ids),
)
