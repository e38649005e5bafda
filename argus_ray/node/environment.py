"""What our children inherit of our environment: what stands in a list, and no more.

Ray and the programs that it runs read hundreds of variables, and some turn a call of ours round: to a proxy, to another
cluster, to another token. So a name is passed on because somebody has said what it is for, and never because nobody has
thought of it. Operators add names by `--pass-env`. Values never reach a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

#: Of `--pass-env`; read by one-machine mode, too.
VARIABLE = "ARGUS_PASS_ENV"
#: Keeps `requests` and its like from ~/.netrc, whose login would replace the Authorization header of a call.
NO_NETRC = {"NETRC": os.devnull}

#: A name, or the beginning of one and `*`.
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Of a process on this machine, whatever it is.
_ALWAYS = """
    PATH HOME USER LOGNAME SHELL HOSTNAME LANG LANGUAGE LC_* TZ TZDIR XDG_*
    LD_LIBRARY_PATH LD_PRELOAD MALLOC_* SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    PYTHONPATH PYTHONUNBUFFERED PYTHONHASHSEED PYTHONNOUSERSITE PYTHONUSERBASE PYTHONDONTWRITEBYTECODE
    PYTHONPYCACHEPREFIX PYTHONWARNINGS PYTHONFAULTHANDLER PYTHONUTF8 PYTHONIOENCODING PYTHONSAFEPATH
    VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV KRB5CCNAME KRB5_CONFIG
    ARGUS_INSTANCE ARGUS_PASS_ENV
    RAY_USE_TLS RAY_TLS_* RAY_BACKEND_LOG_LEVEL RAY_ROTATION_MAX_BYTES RAY_ROTATION_BACKUP_COUNT
    RAY_JOB_START_TIMEOUT_SECONDS RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE
    OMP_* MKL_* OPENBLAS_* KMP_*
"""
#: Ray's own settings (ray_config_def.h): RAY_ and a name in lower case.
_RAY_SETTING = re.compile(r"RAY_[a-z][a-z0-9_]*")
#: Of a worker: users' programs inherit it from the raylet.
_JOBS = """
    http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY
    TMPDIR NETRC
    CUDA_* CUDNN_* CUBLAS_* CUBLASLT_* NVIDIA_* NVTE_* NVSHMEM_* NCCL_* RCCL_* GLOO_* UCX_* UCC_* TORCH_NCCL_*
    ROCM_* ROCR_* HIP_* HSA_* AMD_* MIOPEN_* GPU_* ONEAPI_* ZE_* ASCEND_* HCCL_* TPU_* XLA_*
    FI_* RDMAV_* IBV_* MLX4_* MLX5_* SHARP_* OMPI_* PMIX_* GOMP_* NUMEXPR_* NUMBA_* MAGMA_*
    TORCH_* TORCHINDUCTOR_* TORCHELASTIC_* TORCHDYNAMO_* PYTORCH_* TRITON_* CXX CC LIBRARY_PATH CPATH
    HF_* HUGGINGFACE_* TRANSFORMERS_* DATASETS_* TOKENIZERS_* SAFETENSORS_* MODELSCOPE_* NLTK_DATA
    VERL_* VLLM_* SGLANG_* SGL_* FLASHINFER_* FLASH_ATTENTION_* MEGATRON_* DEEPSPEED_* BNB_* DS_*
    WANDB_* MLFLOW_* SWANLAB_* TENSORBOARD_* CLEARML_*
    RAY_DEDUP_LOGS RAY_EXPERIMENTAL_NOSET_*
"""
#: The second one: whose X-Forwarded-* are believed.
_HEAD = "RAY_SERVE_* FORWARDED_ALLOW_IPS"

#: Not even by `--pass-env`: who may do what, and to which cluster a call goes. We set what is needed ourselves.
_NEVER = re.compile(
    r"RAY_(AUTH_\w*|ADDRESS|API_SERVER_ADDRESS|DASHBOARD_ADDRESS|NAMESPACE|JOB_HEADERS|CLIENT_\w*|RUNTIME_ENV"
    r"|OVERRIDE_JOB_RUNTIME_ENV|TMPDIR|gcs_storage\w*|\w*HOOK|\w*IMPORT_PATH)"
    r"|(ARGUS_ADMIN|ARGUS_METRICS|MVP_ADMIN|MVP_INTERNAL)_TOKEN|WANDB_API_KEY|ARGUS_NODE\w*"
)
#: A shell's own notes, which nobody misses.
_NOISE = frozenset({"_", "PWD", "OLDPWD", "SHLVL"})


class BadEntry(ValueError):
    """What `--pass-env` names cannot be passed on; its words say why."""


@dataclass(frozen=True)
class Inherited:
    """What is passed on, and the names of what is not, in order."""

    kept: dict[str, str]
    left_out: tuple[str, ...]

    @property
    def words(self) -> str:
        """For a log line; empty if nothing was left out. Names only, and of them only those that look like one."""
        named = [name for name in self.left_out if _NAME.fullmatch(name)]
        odd = len(self.left_out) - len(named)
        if not self.left_out:
            return ""
        words = ", ".join([*named, *([f"{odd} with odd names"] if odd else [])])
        return f"not passed on to Ray: {words} (--pass-env NAME,PREFIX_* adds names)"


def for_worker(environ: Mapping[str, str], more: Iterable[str] = ()) -> Inherited:
    """For a raylet whose children are users' programs. Proxies stay: a program may need one to reach the outside, and
    `around_proxies` keeps the cluster's own addresses from it."""
    return _inherit(environ, [*_ALWAYS.split(), *_JOBS.split(), *more])


def for_head(environ: Mapping[str, str], more: Iterable[str] = (), tokens: Collection[str] = ()) -> Inherited:
    """For the head's Ray and for `serve deploy`: they call nobody but the cluster, so no proxy and no login of ~/.netrc
    reaches them, whatever is asked for; nor do these variables, which hold `tokens`."""
    found = _inherit(environ, [*_ALWAYS.split(), *_HEAD.split(), *more], tokens)
    kept = direct(found.kept)
    return Inherited(kept, tuple(sorted({*found.left_out, *(found.kept.keys() - kept.keys())})))


def entries(text: str) -> tuple[str, ...]:
    """`NAME,PREFIX_*`, as `--pass-env` takes it. Raises BadEntry."""
    found = tuple(filter(None, (part.strip() for part in text.split(","))))
    for entry in found:
        if not _ENTRY.fullmatch(entry):
            raise BadEntry(f"must be names of environment variables and beginnings such as PREFIX_*, not {entry!r}")
        if _NEVER.fullmatch(entry):
            raise BadEntry(f"cannot pass {entry} on: Argus sets it itself, or it must not reach Ray")
    return found


def direct(environ: Mapping[str, str]) -> dict[str, str]:
    """The same without proxies, of any kind and case, and without a login of ~/.netrc: for what calls nobody but the
    cluster. By the ending, as Python's urllib takes them."""
    return {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")} | NO_NETRC


def around_proxies(environ: Mapping[str, str], hosts: Collection[str]) -> dict[str, str]:
    """The variables that keep these hosts and this machine from a proxy, with what they say already. One by one: some
    programs do not understand a network, and some read one of the two only."""
    said = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if said.strip() != "*":  # which counts only where it stands alone
        said = ",".join(dict.fromkeys([*filter(None, [said]), "localhost", "127.0.0.1", "::1", *hosts]))
    return {"no_proxy": said, "NO_PROXY": said}


def _inherit(environ: Mapping[str, str], allowed: Collection[str], refused: Collection[str] = ()) -> Inherited:
    names = {entry for entry in allowed if not entry.endswith("*")}
    beginnings = tuple(entry[:-1] for entry in allowed if entry.endswith("*"))

    def is_allowed(name: str) -> bool:
        if name in refused or _NEVER.fullmatch(name):
            return False
        return name in names or name.startswith(beginnings) or _RAY_SETTING.fullmatch(name) is not None

    kept = {name: value for name, value in environ.items() if is_allowed(name)}
    return Inherited(kept, tuple(sorted(name for name in environ if name not in kept and name not in _NOISE)))
