"""Price catalogs for SkyPilot's optimizer, with invented prices.

SkyPilot fetches its catalogs from the network, except a file that it did not write itself (one without a checksum
in its `.meta` folder), which it takes for a person's own and leaves alone. No price here is anybody's price: they
are round, far apart, and such that each of three clouds is the cheapest for one accelerator.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

CATALOG_FOLDER = Path(".sky/catalogs/v8")


@dataclass(frozen=True)
class Offer:
    """One machine type in one region. `price` and `spot` are invented dollars an hour; spot None: not offered."""

    cloud: str
    machine: str
    accelerator: str
    count: int
    cpus: int
    memory_gib: int
    price: float
    spot: float | None
    region: str
    zone: str


OFFERS = (
    Offer("aws", "m6i.2xlarge", "", 0, 8, 32, 0.40, 0.15, "us-east-1", "us-east-1a"),
    Offer("aws", "g6.2xlarge", "L4", 1, 8, 32, 1.00, 0.40, "us-east-1", "us-east-1a"),
    Offer("aws", "p5.4xlarge", "H100", 1, 16, 256, 6.00, 2.50, "us-east-1", "us-east-1a"),
    Offer("aws", "p4de.24xlarge", "A100-80GB", 8, 96, 1152, 36.00, 14.00, "us-east-1", "us-east-1a"),
    Offer("gcp", "n2-standard-8", "", 0, 8, 32, 0.50, 0.10, "us-central1", "us-central1-a"),
    Offer("gcp", "g2-standard-8", "L4", 1, 8, 32, 0.80, 0.30, "us-central1", "us-central1-a"),
    Offer("gcp", "a2-ultragpu-1g", "A100-80GB", 1, 12, 170, 5.00, 2.00, "us-central1", "us-central1-a"),
    Offer("lambda", "gpu_1x_h100_pcie", "H100", 1, 26, 200, 3.00, None, "us-east-1", ""),
    Offer("lambda", "gpu_1x_a10", "A10", 1, 30, 200, 0.70, None, "us-east-1", ""),
)

COLUMNS = (
    "InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo", "Price", "SpotPrice",
    "Region", "AvailabilityZone", "Arch",
)  # fmt: skip


# A dry run looks its machine image up, so that there must be one of the names SkyPilot asks for.
IMAGES = {
    "aws": (("custom-cpu-ubuntu", "custom-gpu-ubuntu-cuda13", "custom-gpu-ubuntu"), "us-east-1", "ami-00000000"),
    "gcp": (
        ("custom-cpu-ubuntu-2204", "custom-gpu-ubuntu-2204-cuda13", "custom-gpu-ubuntu-2204"),
        "",
        "projects/invented/global/images/invented",
    ),
}


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _gpu_rows(offer: Offer) -> list[tuple[object, ...]]:
    spot = "" if offer.spot is None else offer.spot
    accelerator, count = (offer.accelerator, offer.count) if offer.accelerator else ("", "")
    info = f"{{'Gpus': [{{'Name': '{accelerator}', 'MemoryInfo': {{'SizeInMiB': 24576}}}}]}}" if accelerator else ""
    row = (offer.machine, accelerator, count, offer.cpus, offer.memory_gib, info, offer.price, spot)
    rows: list[tuple[object, ...]] = [(*row, offer.region, offer.zone, "x86_64")]
    if offer.cloud == "gcp" and accelerator:
        # Google prices the accelerator and its host apart; the whole price is put on the accelerator here.
        rows = [
            (offer.machine, "", "", offer.cpus, offer.memory_gib, "", 0.0, 0.0, offer.region, offer.zone, "x86_64"),
            ("", accelerator, count, "", "", info, offer.price, spot, offer.region, offer.zone, ""),
        ]
    return rows


def write_catalogs(home: Path, offers: tuple[Offer, ...] = OFFERS) -> None:
    """Write the catalogs of every cloud in `offers`, and the table of accelerators, under the client's HOME."""
    folder = home / CATALOG_FOLDER
    clouds_of: dict[str, set[str]] = {"H100": {"Slurm"}}
    names = {"aws": "AWS", "gcp": "GCP", "lambda": "Lambda"}
    for cloud in {offer.cloud for offer in offers}:
        rows = [row for offer in offers if offer.cloud == cloud for row in _gpu_rows(offer)]
        # A row with an empty zone is dropped for an error, unless there is no such column at all.
        kept = [i for i, name in enumerate(COLUMNS) if name != "AvailabilityZone" or any(row[i] for row in rows)]
        _write(
            folder / cloud / "vms.csv",
            tuple(COLUMNS[i] for i in kept),
            [tuple(row[i] for i in kept) for row in rows],
        )
    for offer in offers:
        if offer.accelerator:
            clouds_of.setdefault(offer.accelerator, set()).add(names[offer.cloud])
    _write(
        folder / "common" / "accelerators.csv",
        ("AcceleratorName", "Clouds"),
        [(name, str(sorted(clouds))) for name, clouds in sorted(clouds_of.items())],
    )
    header = ("Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate")
    for cloud, (tags, region, image) in IMAGES.items():
        rows = [(f"skypilot:{tag}", region, "ubuntu", "22.04", image, "20260101") for tag in tags]
        _write(folder / cloud / "images.csv", header, rows)
    quota = ("Region", "InstanceType", "SpotInstanceCode", "OnDemandInstanceCode")
    _write(folder / "aws" / "instance_quota_mapping.csv", quota, [])
    quota = ("Region", "Accelerator", "SpotInstanceCode", "OnDemandInstanceCode")
    _write(folder / "gcp" / "accelerator_quota_mapping.csv", quota, [])
