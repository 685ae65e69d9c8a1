"""The rows of a run's result table, however it is drawn."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from dsfedmed_ray.summary import MEAN, Groups, Scores, Summary

Group = Literal["seen", "unseen"]

METHOD_NAMES = {
    "centralized": "Centralized",
    "dsfedmed": "DSFedMed",
    "fedavg": "FedAvg",
    "fedavg_refined": "FedAvg + refinement",
    "fedavg_synthetic": "FedAvg + synthetic images",
    "fedmsa": "FedMSA",
    "fednnunet": "FednnU-Net",
    "fedsam": "FedSAM",
    "fedtinysam": "FedTinySAM",
    "fedunet": "FedU-Net",
    "msa": "MSA",
    "sam": "SAM",
    "tinysam": "TinySAM",
    "unet": "U-Net",
}

CLOCKED_STAGES = {"tune_generators": "ControlNet uploads", "train_federated": "rounds"}
"""What the virtual clock may count, in words; no other time is on it."""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One model's results.

    Attributes:
        name: the method, and the model where it is not the lightweight one.
        groups: scores of the seen sites and of the unseen one.
        per_client_bytes: mean bytes a client; None where nothing travels or it is not known.
        inference_ms: milliseconds an image; None where not known.
        is_own: False for baselines.
    """

    name: str
    groups: Groups
    per_client_bytes: float | None
    inference_ms: float | None
    is_own: bool

    def scores(self, group: Group, site: str) -> Scores | None:
        """The scores of a site or of ``"mean"``; None where they were not measured."""
        return self.groups.get(group, {}).get(site)


def result_rows(summary: Summary) -> list[ResultRow]:
    """The method's lightweight model, the baselines, then the method's foundation model."""
    name, metrics = method_name(summary["method"]), summary["metrics"]
    times = summary["inference_ms"]
    rows = [
        ResultRow(
            name=name,
            groups=metrics["lightweight"],
            per_client_bytes=summary["communication"]["per_client_bytes"],
            inference_ms=times.get("lightweight"),
            is_own=True,
        )
    ]
    for baseline, result in summary.get("baselines", {}).items():
        rows.append(
            ResultRow(
                name=method_name(baseline),
                groups=result["lightweight"],
                per_client_bytes=result.get("per_client_bytes"),
                inference_ms=result.get("inference_ms"),
                is_own=False,
            )
        )
    if "foundation" in metrics:
        rows.append(
            ResultRow(
                name=f"{name}, foundation model",
                groups=metrics["foundation"],
                per_client_bytes=None,
                inference_ms=times.get("foundation"),
                is_own=True,
            )
        )
    return rows


def method_name(method: str) -> str:
    """A method's name as the literature writes it."""
    if method in METHOD_NAMES:
        return METHOD_NAMES[method]
    return " ".join(METHOD_NAMES.get(word, word) for word in method.split("_"))


def seen_sites(summary: Summary) -> list[str]:
    """The seen sites, without their mean."""
    return [site for site in summary["metrics"]["lightweight"]["seen"] if site != MEAN]


def clocked(simulated_seconds: Collection[str]) -> str:
    """What a run's virtual clock counted, in words."""
    return " and ".join(w for stage, w in CLOCKED_STAGES.items() if stage in simulated_seconds)


def quality_phrases(summary: Summary) -> list[str]:
    """What was measured of the synthetic set, one phrase a number; empty without a generator."""
    quality = summary.get("generator") or {}
    phrases = []
    if "tstr_ratio" in quality:
        least = f", at least {quality['tstr_ratio_min']:.2f}" if "tstr_ratio_min" in quality else ""
        phrases.append(f"TSTR ratio {quality['tstr_ratio']:.2f}{least}")
    if "mask_agreement" in quality:
        phrases.append(f"mask agreement {quality['mask_agreement']:.2f}")
    if "kid" in quality:
        phrases.append(f"KID {quality['kid']:.3f}")
    if "memorisation" in quality:
        verdict = "flagged" if quality["memorisation"]["flag"] else "no flag"
        phrases.append(f"memorisation ratio {quality['memorisation']['ratio']:.2f} ({verdict})")
    return phrases
