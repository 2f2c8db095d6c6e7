"""Opening packed code in the slot."""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

from everfaas_core.shipping import rebuild
from everfaas_core.shipping.envelope import Envelope, packer
from everfaas_core.shipping.rebuild import Scene, minor_version
from everfaas_core.shipping.trouble import ForeignCode

REBUILD: Final = rebuild.__name__


class Opener(pickle.Unpickler):
    """Loads one packed stream into a scene."""

    def __init__(self, packed: bytes, scene: Scene) -> None:
        super().__init__(io.BytesIO(packed))
        self._scene = scene

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the stream; called by the unpickler."""
        if module == REBUILD and name == "SCENE":
            return self._scene
        return super().find_class(module, name)


def open_packed(envelope: Envelope, function: Scene | None = None) -> tuple[Any, Scene]:
    """Load what an envelope holds; return it and its scene. `function`: for a call, the scene of what is called.

    Raises ForeignCode if it is of another minor version and not all of it has source; and whatever loading raises.
    """
    scene = Scene(envelope.python, function)
    try:
        loaded = Opener(envelope.packed, scene).load()
        scene.check()
    except ModuleNotFoundError:
        raise
    except Exception as error:
        error.add_note(f"packed by {envelope.packer}, opened by {packer()}")
        if scene.native:
            raise
        raise ForeignCode(
            f"it was packed by Python {envelope.python}, this worker runs {minor_version()}, and it can't be run from "
            f"its source: {error}"
        ) from error
    return loaded, scene
