"""Data sets by the short name that `data.source.kind` gives their reader; docs/extend.md says how to add one."""

import re

SOURCES = {
    "digits": "ssat.data.sets.sources:digits",
    "cifar10": "ssat.data.sets.readers:cifar10",
    "cifar100": "ssat.data.sets.readers:cifar100",
    "svhn": "ssat.data.sets.readers:svhn",
    "pmnist": "ssat.data.sets.readers:pmnist",
    "flowers": "ssat.data.sets.lists:flowers",
    "imagenet": "ssat.data.sets.lists:imagenet",
    "domainnet": "ssat.data.sets.lists:domainnet",
    "chaoyang": "ssat.data.sets.lists:chaoyang",
    "image_folder": "ssat.data.sets.folder:image_folder",
    "csv": "ssat.data.sets.csv_list:csv_list",
    "hf": "ssat.data.sets.hub:hf",
    "stand_in": "ssat.data.sets.stand_in:stand_in",
    "ffpp": "ssat.data.video.sets:ffpp",
    "dfdc": "ssat.data.video.sets:dfdc",
    "dfdcp": "ssat.data.video.sets:dfdcp",
    "video_folder": "ssat.data.video.sets:video_folder",
}

# data.group=<file.csv>:<column>; here, as naming a run needs it and no array.
GROUP_TABLE = re.compile(r"(.+?\.(?:csv|tsv))(?::(.*))?", re.IGNORECASE | re.DOTALL)
