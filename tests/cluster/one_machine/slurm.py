"""The Slurm of one node: munged, slurmctld, slurmd and sshd on the loopback, all real.

    node = slurm.up(Path("/tmp/cluster"), uv=Path(".venv-sky/bin/uv"))
    slurm.scancel(node, "42")
    slurm.down(Path("/tmp/cluster"))

Everything lies under ROOT: configuration, keys, logs, spool, and the home of the node's user, an account made for
this ROOT and removed with it. What is pretended: 128 CPUs, a terabyte of memory and eight H100s, whose device files
are /dev/null under other names. Slurm hands them out and sets CUDA_VISIBLE_DEVICES; nothing can compute on them.
There is no cgroup confinement and no accounting database (so `sacct` knows nothing).

Needs root, for the account, the device files and the daemons that run as another user.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import ports, processes

CLUSTER = "local"
GPUS = {"H100": 8}  # one type: SkyPilot reads only the first type of a node
KILL_WAIT_SECONDS = 5
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sshd", "ssh-keygen", "rsync", "nc", "setpriv")
# The TaskProlog copies these from the environment of `up` into every job: where packages come from, and which
# address stands for S3, are matters of the machine.
PASSED_TO_JOBS = ("PIP_", "UV_", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_")


@dataclass(frozen=True)
class Ports:
    """Loopback ports, chosen free at the first `up` and kept for this ROOT."""

    controller: int
    node: int
    ssh: int
    api_server: int


@dataclass(frozen=True)
class Node:
    """What `up` made. `user` is the account that jobs run as; `shared` a folder that it may write."""

    root: Path
    ports: Ports
    user: str

    @property
    def client_home(self) -> Path:
        """HOME of the SkyPilot client."""
        return self.root / "client"

    @property
    def shared(self) -> Path:
        """A folder on the node that outlives every job, as a cluster's shared filesystem does."""
        return self.root / "shared"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's own commands find this cluster."""
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "SLURM_CONF": str(self.root / "slurm.conf"),
            "HOME": str(self.root / "home"),
            "LANG": "C.UTF-8",
            processes.MARK: str(self.root),
        }

    def command(self, *words: str, check: bool = True) -> str:
        """Run one of Slurm's commands as the node's user and return what it printed."""
        account = pwd.getpwnam(self.user)
        done = subprocess.run(
            words,
            env=self.environment,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


def missing() -> str:
    """Why this machine cannot carry the cluster, in one sentence; empty when it can."""
    if os.geteuid() != 0:
        return "the one-machine Slurm needs root (it makes an account and device files)"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (tests/cluster/make_environment.sh installs them)"
    return ""


def user_name(root: Path) -> str:
    """Name of the account that belongs to this ROOT."""
    return "nsd-" + hashlib.sha256(str(root).encode()).hexdigest()[:8]


def user_id(root: Path) -> int | None:
    """Id of that account, or None while there is none."""
    try:
        return pwd.getpwnam(user_name(root)).pw_uid
    except KeyError:
        return None


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load(root: Path) -> Node | None:
    """The cluster that `up` left in `root`, or None."""
    path = root / "ports.json"
    if not path.exists():
        return None
    return Node(root, Ports(**json.loads(path.read_text())), user_name(root))


def is_up(node: Node) -> bool:
    """Whether its daemons answer and its node takes jobs."""
    if user_id(node.root) is None or not _listening(node.ports.ssh):
        return False
    state = node.command("sinfo", "--noheader", "--format=%t", check=False).strip()
    return state in {"idle", "mix", "alloc"}


def _slurm_conf(node: Node) -> str:
    gres = ",".join(f"gpu:{name}:{count}" for name, count in GPUS.items())
    settings = {
        "ClusterName": CLUSTER,
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": node.ports.controller,
        "SlurmUser": node.user,
        "SlurmdUser": node.user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={node.root}/munge/socket",
        "StateSaveLocation": node.root / "state",
        "SlurmdSpoolDir": node.root / "spool",
        "SlurmctldPidFile": node.root / "run/slurmctld.pid",
        "SlurmdPidFile": node.root / "run/slurmd.pid",
        "SlurmctldLogFile": node.root / "log/slurmctld.log",
        "SlurmdLogFile": node.root / "log/slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "ReturnToService": 2,
        "KillWait": KILL_WAIT_SECONDS,
        "SlurmdParameters": "config_overrides",  # believe the CPUs below, not the ones that are there
        "GresTypes": "gpu",
        "TaskProlog": node.root / "task_prolog.sh",
    }
    # SkyPilot reaches a node by its name, which therefore has to resolve: localhost.
    machine = (
        f"NodeName=localhost NodeHostname={socket.gethostname().split('.')[0]} NodeAddr=127.0.0.1 "
        f"Port={node.ports.node} CPUs=128 RealMemory=1000000 Gres={gres} State=UNKNOWN"
    )
    partition = "PartitionName=gpu Nodes=localhost Default=YES MaxTime=04:00:00 State=UP"
    return "\n".join([*(f"{name}={value}" for name, value in settings.items()), machine, partition, ""])


def _task_prolog(node: Node) -> str:
    # SkyPilot's node setup downloads uv and a Python 3.10 from addresses that an offline machine does not reach.
    # With both in their places it leaves them alone. A step may start twice at once, hence the locks.
    # The environment of the first cluster is kept once SkyPilot runs in it, and later ones begin with links to its
    # files, as on a machine image that has SkyPilot's packages: to unpack and compile them takes ten seconds each time.
    exports = {name: value for name, value in os.environ.items() if name.startswith(PASSED_TO_JOBS)}
    exports["UV_CACHE_DIR"] = str(node.root / "cache/uv")
    exports["PIP_CACHE_DIR"] = str(node.root / "cache/pip")
    lines = "\n".join(f"echo {_quoted(f'export {name}={value}')}" for name, value in sorted(exports.items()))
    return f"""#!/bin/bash
{lines}
kept="{node.root}/cache/skypilot-runtime"
for made in {node.root}/tmp/*/skypilot-runtime; do
    [ -d "$kept" ] && break
    [ -d "$(echo "$made"/lib/python3*/site-packages/sky/jobs/client/__pycache__)" ] || continue
    (
        flock 9
        [ -d "$kept" ] && exit 0
        rm -rf "$kept.making"  # of a cluster that went down meanwhile
        cp -al "$made" "$kept.making" && mv "$kept.making" "$kept"
    ) 9>"$kept.lock" >"{node.root}/log/prolog.kept.log" 2>&1
done
[ -n "${{SLURM_JOB_NAME:-}}" ] || exit 0
cluster_home="$HOME/.sky_clusters/$SLURM_JOB_NAME"
[ -d "$cluster_home" ] || exit 0
runtime="{node.root}/tmp/$SLURM_JOB_NAME/skypilot-runtime"
mkdir -p "$cluster_home/.local/bin" "${{runtime%/*}}"
ln -sf {node.root}/bin/uv "$cluster_home/.local/bin/uv"
if [ ! -d "$runtime" ]; then
    (
        flock 9
        [ -d "$runtime" ] && exit 0
        if [ -d "$kept" ]; then
            cp -al "$kept" "$runtime.making"
        else
            {node.root}/bin/uv venv --quiet --seed --relocatable --python /usr/bin/python3 "$runtime.making"
        fi
        mv "$runtime.making" "$runtime"
    ) 9>"$runtime.lock" >"{node.root}/log/prolog.$SLURM_JOB_NAME.log" 2>&1
fi
exit 0
"""


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _sshd_config(node: Node) -> str:
    settings = {
        "Port": node.ports.ssh,
        "ListenAddress": "127.0.0.1",
        "HostKey": node.root / "keys/host",
        "PidFile": node.root / "run/sshd.pid",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "StrictModes": "no",
        "AllowUsers": node.user,
        "MaxSessions": 200,
        "MaxStartups": "150:30:200",
        "SetEnv": f"SLURM_CONF={node.root}/slurm.conf",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _check_reachable(root: Path) -> None:
    for folder in (root, *root.parents):
        if folder.exists() and not folder.stat().st_mode & 0o001:
            raise RuntimeError(f"{root}: the node's user cannot enter {folder}; choose a folder open to everybody")


def _make_account(node: Node) -> None:
    if user_id(node.root) is None:
        home = str(node.root / "home")
        subprocess.run(["useradd", "--home-dir", home, "--shell", "/bin/bash", node.user], check=True)
    # An account without a password is locked ('!'), and a locked account gets no ssh session without PAM.
    subprocess.run(["usermod", "--password", "*", node.user], check=True)


def _make_files(node: Node, uv: Path) -> None:
    root = node.root
    for name in ("home/.ssh", "tmp", "munge", "state", "spool", "log", "run", "shared", "cache/uv", "cache/pip"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("keys", "bin", "dev", "client/.slurm"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(uv, root / "bin/uv")
    (root / "bin/uv").chmod(0o755)
    first, gres_lines = 0, []
    for name, count in GPUS.items():
        for index in range(first, first + count):
            device = root / f"dev/nvidia{index}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # Slurm insists on character devices
        gres_lines.append(
            f"NodeName=localhost Name=gpu Type={name} File={root}/dev/nvidia[{first}-{first + count - 1}]"
        )
        first += count
    if not (root / "munge/key").exists():
        (root / "munge/key").write_bytes(os.urandom(1024))
    (root / "munge/key").chmod(0o400)
    for name in ("node", "host"):
        if not (root / f"keys/{name}").exists():
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "one-machine", "-f", str(root / f"keys/{name}")]
            subprocess.run(key, check=True)
    shutil.copy(root / "keys/node.pub", root / "home/.ssh/authorized_keys")
    (root / "home/.ssh").chmod(0o700)
    (root / "slurm.conf").write_text(_slurm_conf(node))
    (root / "gres.conf").write_text("\n".join(gres_lines) + "\n")
    (root / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
    (root / "task_prolog.sh").write_text(_task_prolog(node))
    (root / "task_prolog.sh").chmod(0o755)
    (root / "sshd_config").write_text(_sshd_config(node))
    # The client's side of ssh, in the place where SkyPilot looks for Slurm clusters.
    shutil.copy(root / "keys/node", root / "client/.slurm/key")
    (root / "client/.slurm/key").chmod(0o600)
    (root / "client/.slurm/config").write_text(
        f"Host {CLUSTER}\n    HostName 127.0.0.1\n    Port {node.ports.ssh}\n    User {node.user}\n"
        "    IdentityFile ~/.slurm/key\n"
    )
    account = pwd.getpwnam(node.user)
    for name in ("home", "tmp", "munge", "state", "spool", "log", "run", "shared", "cache"):
        for path in [root / name, *(root / name).rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def up(root: Path, uv: Path, owner: int | None = None) -> Node:
    """Bring the cluster up in `root`, or find it up already. `uv` is copied to the node.

    With `owner`, the id of a process, the cluster goes down by itself when that process ends.
    Raises RuntimeError where the machine lacks something, or a daemon does not come up.
    """
    if reason := missing():
        raise RuntimeError(reason)
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    _check_reachable(root)
    known = load(root)
    if known is not None and is_up(known):
        return known
    processes.end_all(root, user_id(root))
    controller, slurmd, ssh = ports.free(3)
    node = Node(root, Ports(controller, slurmd, ssh, ports.for_api_server()), user_name(root))
    # Written before anything starts: from here on `down` knows what to end.
    (root / "ports.json").write_text(json.dumps(asdict(node.ports)))
    if owner is not None:
        processes.start_watch(root, owner)
    _make_account(node)
    _make_files(node, uv)
    munge = root / "munge"
    node.command(
        "munged", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={munge}/pid",
        f"--seed-file={munge}/seed", f"--log-file={root}/log/munged.log",
    )  # fmt: skip
    _start(node, "slurmctld", "-c")
    _start(node, "slurmd", "-N", "localhost")
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = shutil.which("sshd", path=node.environment["PATH"]) or "sshd"
    subprocess.run([sshd, "-f", str(root / "sshd_config")], env=node.environment, check=True)
    deadline = time.monotonic() + 300
    while not is_up(node):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the node does not become idle; its logs are in {root}/log")
        time.sleep(0.2)
    return node


def _start(node: Node, *words: str) -> None:
    """Start a daemon, which leaves the terminal by itself, with its output in a file: a pipe would never close."""
    account = pwd.getpwnam(node.user)
    with (node.root / f"log/{words[0]}.out").open("ab") as output:
        subprocess.run(
            words,
            env=node.environment,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def allocations(node: Node) -> dict[str, str]:
    """Slurm's job id of every allocation that is pending or running, with its name (SkyPilot's cluster name)."""
    lines = node.command("squeue", "--noheader", "--format=%i %j").splitlines()
    return {identity: name for identity, _, name in (line.partition(" ") for line in lines)}


def scancel(node: Node, allocation: str) -> None:
    """Take an allocation away, as a preemption does: SIGTERM, and SIGKILL after `KILL_WAIT_SECONDS`."""
    node.command("scancel", allocation)


def down(root: Path) -> None:
    """End everything that runs for `root` and remove its account. The folder stays, for its logs."""
    root = root.resolve()
    processes.end_all(root, user_id(root))
    (root / "ports.json").unlink(missing_ok=True)
    if user_id(root) is not None:
        subprocess.run(["userdel", "--force", user_name(root)], check=True, capture_output=True)
