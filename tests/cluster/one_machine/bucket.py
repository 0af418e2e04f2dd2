"""An S3 service on the loopback: moto's server, which keeps its buckets in memory.

The signatures and the protocol are S3's, so pyarrow, boto3 and SkyPilot speak to it as they are. It forgets
everything when it stops, checks no permission and keeps no order between writers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import ports, processes

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

REGION = "us-east-1"


@dataclass
class Service:
    """A running S3 service. `environment` is what its clients need, no more."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def endpoint(self) -> str:
        """Address for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point an S3 client at this service. The credentials are made up; any would do."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "invented",
            "AWS_SECRET_ACCESS_KEY": "invented",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create(self, name: str) -> str:
        """Make a bucket and return its address, s3://NAME."""
        self.filesystem().create_dir(name)
        return f"s3://{name}"

    def filesystem(self) -> S3FileSystem:
        """pyarrow's filesystem on this service, whatever this process's environment says."""
        from pyarrow.fs import S3FileSystem

        return S3FileSystem(
            access_key="invented",
            secret_key="invented",
            region=REGION,
            scheme="http",
            endpoint_override=f"127.0.0.1:{self.port}",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(python: Path, mark: Path) -> Service:
    """Start the service on a free port with the environment of `python`; raises RuntimeError if it does not answer."""
    (port,) = ports.free(1)
    process = subprocess.Popen(
        [str(python.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, processes.MARK: str(mark)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    service = Service(process, port)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return service
        time.sleep(0.1)
    service.stop()
    raise RuntimeError("moto_server does not answer")
