"""The upstream MLPs (paper, section 4.3): embeddings of texts, summaries, captions and images to fields of 32.

`paper` fits them on the rows that the DLRM then trains on, `split` on one half of train while the DLRM takes the other,
`joint` leaves them as drawn, for train to learn end to end. Each is fitted by itself, under a head of its own.
"""

import argparse

import torch
from torch import nn

from models import saved
from models.columns import Unencodable
from models.variants import VARIANTS
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import fingerprint, read_splits
from pipelines.learning import fit_encodings, fit_reducers


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on the number of threads
    splits = read_splits(args.training_set, params.model)
    try:
        vectors = fit_encodings(splits["train"].columns, VARIANTS[params.model])
        reducers = fit_reducers(splits, vectors, params, params.seeds, "reduce")
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    about = {
        "kind": "reducer",
        "feature_service": f"{params.model}_{params.protocol}",
        "fingerprint": fingerprint(args.training_set),
        "params": params.model_dump(include={"protocol", "model", "seed", "networks", "reduce"}),
        "encoding": {field: part.to_json() for field, part in vectors.items()},
    }
    with whole_file(args.out) as temporary:
        saved.save(temporary, nn.ModuleDict(reducers).state_dict(), about)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {"training-set": "folder of train, validation and test", "out": "the reducers' safetensors file"},
    )
