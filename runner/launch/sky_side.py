"""Runs inside SkyPilot's own Python, which has no nsd: requests in, answers out, one after the other.

    PYTHON sky_side.py < requests.jsonl

A request is a line {"do": NAME, "answer": FILE, ...}; the file gets {"ok": ...} or {"error": KIND, "message": TEXT},
and then FILE's path is printed on a line. What SkyPilot prints before goes to standard output as it comes. A file
beside it, with the ending .begun, says that the request was read. Secrets come in the request, on standard input, and
are never written.

Only the standard library and `sky` are imported here. Limits: two names of SkyPilot's optimizer are private, which is
why `VERSIONS` in bridge.py says what this was tried with.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any


def task_of(request: dict[str, Any]) -> Any:
    import sky

    task = sky.Task.from_yaml_config(request["task"])
    secrets = request.get("secrets") or {}
    if secrets:
        task.update_secrets(secrets)
    return task


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Version, and the clouds that can be used; of another version nothing more is asked."""
    import sky

    if not sky.__version__.startswith(tuple(request["versions"])):
        return {"version": sky.__version__, "server": "", "clouds": []}
    from sky.client import sdk

    clouds = list(sky.get(sdk.enabled_clouds()))  # starts a local server where none runs; api_info does not
    return {"version": sky.__version__, "server": str(sky.api_info().version), "clouds": clouds}


def offers(request: dict[str, Any]) -> dict[str, Any]:
    """Machines that fit the task, cheapest first; price 0 means that SkyPilot knows none."""
    import sky
    from sky import optimizer

    task = task_of(request)
    with sky.Dag() as dag:
        dag.add(task)
    launchable = optimizer._fill_in_launchable_resources(task, None)[0]
    rows = []
    for found in launchable.values():
        for one in found:
            rows.append(row_of(one))
    optimizer.Optimizer.optimize(dag, quiet=True)
    return {"offers": rows, "best": row_of(task.best_resources)}


def row_of(resources: Any) -> dict[str, Any]:
    return {
        "cloud": str(resources.cloud),
        "region": resources.region,
        "machine": resources.instance_type,
        "accelerators": resources.accelerators,
        "spot": bool(resources.use_spot),
        "usd_per_hour": float(resources.get_cost(3600)),
    }


def launch(request: dict[str, Any]) -> dict[str, Any]:
    """Start a job on a cluster of its own, which goes down when it has been idle."""
    import sky

    task = task_of(request)
    made = sky.launch(
        task, cluster_name=request["cluster"], idle_minutes_to_autostop=request["idle_minutes"], down=True
    )
    job, _ = sky.stream_and_get(made)
    return {"job": job}


def follow(request: dict[str, Any]) -> dict[str, Any]:
    import sky

    return {"code": sky.tail_logs(request["cluster"], request["job"], follow=True)}


def state(request: dict[str, Any]) -> dict[str, Any]:
    """Status of a cluster's job: a word, or None where the cluster or the job is gone.

    A cluster that does not answer for the moment (SkyPilot's INIT) is not gone: its job is UNREACHABLE.
    """
    import sky

    try:
        found = sky.get(sky.job_status(request["cluster"], job_ids=[request["job"]]))
    except sky.exceptions.ClusterDoesNotExist:
        return {"status": None}
    except sky.exceptions.ClusterNotUpError:
        rows = sky.get(sky.status(cluster_names=[request["cluster"]], refresh=sky.StatusRefreshMode.FORCE))
        stopped = not rows or rows[0]["status"] == sky.ClusterStatus.STOPPED
        return {"status": None if stopped else "UNREACHABLE"}
    status = next(iter(found.values()), None)
    return {"status": None if status is None else status.value}


def find(request: dict[str, Any]) -> dict[str, Any]:
    """The newest job of a cluster, None where there is none (yet), and whether there is the cluster."""
    import sky

    try:
        rows = sky.get(sky.queue(request["name"]))
    except sky.exceptions.ClusterDoesNotExist:
        return {"job": None, "coming": False}
    except sky.exceptions.ClusterNotUpError:
        return {"job": None, "coming": True}
    return {"job": max((row["job_id"] for row in rows), default=None), "coming": True}


def down(request: dict[str, Any]) -> dict[str, Any]:
    import sky

    try:
        sky.get(sky.down(request["cluster"]))
    except (sky.exceptions.ClusterDoesNotExist, ValueError) as error:
        if "not exist" not in str(error) and "not found" not in str(error):
            raise
    return {}


def jobs_launch(request: dict[str, Any]) -> dict[str, Any]:
    """Start a managed job: SkyPilot brings it back after a preemption."""
    import sky

    ids, _ = sky.stream_and_get(sky.jobs.launch(task_of(request), name=request["name"]))
    return {"job": ids[0] if isinstance(ids, (list, tuple)) else ids}


def jobs_state(request: dict[str, Any]) -> dict[str, Any]:
    import sky

    fields = ["job_id", "status", "recovery_count", "failure_reason", "details", "current_cluster_name"]
    rows = sky.get(sky.jobs.queue_v2(refresh=True, job_ids=request["jobs"], fields=fields))
    rows = rows[0] if isinstance(rows, tuple) else rows
    found = {}
    for row in rows:
        row = row if isinstance(row, dict) else row.model_dump()
        status = row["status"]
        found[str(row["job_id"])] = {
            "status": getattr(status, "value", status),
            "recoveries": row.get("recovery_count") or 0,
            "reason": row.get("failure_reason"),
            "cluster": row.get("current_cluster_name"),
        }
    return {"jobs": found}


def jobs_follow(request: dict[str, Any]) -> dict[str, Any]:
    import sky

    return {"code": sky.jobs.tail_logs(job_id=request["job"], follow=True)}


def jobs_cancel(request: dict[str, Any]) -> dict[str, Any]:
    import sky

    sky.get(sky.jobs.cancel(job_ids=[request["job"]]))
    return {}


def jobs_find(request: dict[str, Any]) -> dict[str, Any]:
    """The newest managed job of a name, None where there is none."""
    import sky

    try:
        found = sky.get(sky.jobs.queue_v2(refresh=True, fields=["job_id", "job_name"], name_match=request["name"]))
    except sky.exceptions.ClusterNotUpError:  # no managed job was ever started
        return {"job": None, "coming": False}
    rows = found[0] if isinstance(found, tuple) else found
    return {
        "job": max((row["job_id"] for row in rows if row["job_name"] == request["name"]), default=None),
        "coming": False,
    }


ACTIONS = {
    function.__name__: function
    for function in (check, offers, launch, follow, state, find, down, jobs_launch, jobs_state, jobs_follow)
}
ACTIONS |= {"jobs_cancel": jobs_cancel, "jobs_find": jobs_find}


def watch_parent() -> None:
    """End with the command that asked, also when that one is killed. The server goes on with what it was asked for."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def take_requests() -> Any:
    """Standard input, away from whatever SkyPilot or a process of its own may read there."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return requests


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; Ctrl-C ends the doing."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return {"ok": ACTIONS[request["do"]](request)}
    except KeyboardInterrupt:
        return {"error": "KeyboardInterrupt", "message": "interrupted"}
    except BaseException as error:  # SkyPilot raises SystemExit too
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"error": type(error).__name__, "kinds": kinds, "message": str(error)}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the command that asks, while nothing is asked


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent()
    for line in take_requests():
        request = json.loads(line)
        answer = Path(request["answer"])
        answer.with_suffix(".begun").touch()
        answer.write_text(json.dumps(answer_to(request)))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
