"""Self-supervised tasks by the short name that `ssl.kind` gives them; docs/extend.md says how to add one."""

TASKS = {
    "reconstruction": "ssat.tasks.reconstruction:Reconstruction",
    "latent": "ssat.tasks.latent:LatentReconstruction",
    "simclr": "ssat.tasks.simclr:SimCLR",
    "dino": "ssat.tasks.dino:DINO",
    "drloc": "ssat.tasks.drloc:Drloc",
    "guidance": "ssat.tasks.guidance:Guidance",
    "videomae": "ssat.tasks.videomae:VideoMAE",
}
