"""Windows are laid end to end as trl's own padding-free collator does."""

from __future__ import annotations

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tests.support.adapted import Adapted
from training.data.collate import collate


def test_windows_are_collated_as_trl_collates_them(adapted: Adapted) -> None:
    rows = [adapted.windows[number] for number in range(min(3, len(adapted.windows)))]
    ours, expected = collate(rows), DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    assert expected.keys() - ours.keys() == {"seq_idx"}  # for models with state-space layers
    for name, part in ours.items():
        if torch.is_tensor(part):
            assert torch.equal(part, expected[name]), name
            assert part.dtype == expected[name].dtype, name
        else:
            assert part == expected[name], name
