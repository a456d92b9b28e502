"""From where a model's weights are to a local folder that is ready to load.

`locate` says where that folder is, if it is ready now; `ensure` makes it ready, `ensure_in_subprocess` without keeping
an import's memory; `pull` fetches from a model hub.
Engines only ever see the folder. Nothing here imports torch or transformers before an import really needs them.

    origin       what `ModelSpec.weights` names: a folder, a GGUF file, a hub repository
    layout       the folder formats engines load, and the refusal of pickles
    cache        folders with manifests, made once and renamed into place
    gguf_import  GGUF to safetensors
    hub, hub_files, lockfile, pull      repositories of a hub, pinned by models.lock
"""

from headrace_workers.weights.child import ensure_in_subprocess
from headrace_workers.weights.ready import ensure, locate

__all__ = ["ensure", "ensure_in_subprocess", "locate"]
