"""Cut a GGUF model off behind its first layers, as a model of its own: small enough to try ways of quantizing on in minutes.

    python tools/keep_layers.py MODEL.gguf OUT.gguf --layers 6

The last norm and the head stay. Such a model writes nothing sensible, but what quantization changes in its predictions can be measured as
in any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ggpy.errors import GGPyError
from ggpy.gguf import GGUFWriter, open_gguf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    args = parser.parse_args()
    with open_gguf(args.file) as source, GGUFWriter(args.out) as writer:
        count = f"{source.metadata['general.architecture']}.block_count"
        if not 0 < args.layers <= source.metadata[count]:
            raise GGPyError(f"{args.file}: has {source.metadata[count]} layers, not {args.layers}")
        for key in source.metadata:
            if key != count:
                writer.copy(source.metadata, key)
        writer.add(count, args.layers, source.metadata.value_type(count))
        kept = [t for t in source.tensors.values() if not t.name.startswith("blk.") or int(t.name.split(".")[1]) < args.layers]
        for tensor in kept:
            writer.add_tensor(tensor.name, tensor.shape, tensor.format)
        for tensor in kept:
            writer.write_tensor(tensor.name, tensor.data)
    print(f"{args.out}: {len(kept)} of {len(source.tensors)} tensors")


if __name__ == "__main__":
    main()
