"""The paper's ten image data sets, and the embedded digits: what they are, where they come from, how to recognise them.

Counts are those of the official files; where Table 9 prints others, `note` says so.
"""

from __future__ import annotations

from ssat.data.sets.card import Card, Download
from ssat.data.sets.flower_names import FLOWERS

CIFAR_CITATION = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
DOMAINNET = "http://csr.bu.edu/ftp/visda/2019/multi-source/"
DIGIT_NAMES = tuple(str(digit) for digit in range(10))


def _domainnet(domain: str, title: str, counts: tuple[int, int], megabytes: int, cleaned: bool, note: str) -> Card:
    # MD5s: as used by several independent readers of the cleaned version, the makers publish none.
    zip_md5, train_md5, test_md5 = DOMAINNET_MD5[domain]
    lists = DOMAINNET + "domainnet/txt/"
    return Card(
        name=domain,
        title=title,
        train=counts[0],
        test=counts[1],
        classes=345,
        img_size=224,
        licence="no licence; fair-use notice for non-commercial research on its page",
        citation="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019 (DomainNet, cleaned)",
        homepage="http://ai.bu.edu/M3SDA/",
        folder="domainnet",
        marks=(domain, f"{domain}_train.txt", f"{domain}_test.txt"),
        tree=f"domainnet/{domain}/<class>/*.jpg, domainnet/{domain}_train.txt, domainnet/{domain}_test.txt",
        downloads=(
            Download(
                f"{DOMAINNET}{'groundtruth/' if cleaned else ''}{domain}.zip", zip_md5, megabytes, "domainnet", domain
            ),
            Download(f"{lists}{domain}_train.txt", train_md5, 2, "domainnet"),
            Download(f"{lists}{domain}_test.txt", test_md5, 1, "domainnet"),
        ),
        disk=megabytes,
        note=note,
    )


DOMAINNET_MD5 = {
    "clipart": (
        "cd0d8f2d77a4e181449b78ed62bccf1e",
        "b4349693a7f9c05c53955725c47ed6cb",
        "f5ddbcfd657a3acf9d0f7da10db22565",
    ),
    "infograph": (
        "720380b86f9e6ab4805bb38b6bd135f8",
        "379b50054f4ac2018dca4f89421b92d9",
        "779626b50869edffe8ea6941c3755c71",
    ),
    "sketch": (
        "658d8009644040ff7ce30bb2e820850f",
        "1233bd18aa9a8a200bf4cecf1c34ef3e",
        "d8a222e4672cfd585298aa14d02ea441",
    ),
}

_CARDS = (
    Card(
        name="digits",
        title="Digits",
        train=1437,
        test=360,
        classes=10,
        class_names=DIGIT_NAMES,
        img_size=16,
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        folder="",
        marks=(),
        tree="comes with scikit-learn",
        note="not in the paper; the split is ours, stratified and frozen",
    ),
    Card(
        name="cifar10",
        title="CIFAR-10",
        train=50_000,
        test=10_000,
        classes=10,
        img_size=32,
        licence="none stated",
        citation=CIFAR_CITATION,
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        folder="cifar-10-batches-py",
        marks=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        tree="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}",
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                170,
                "",
                "cifar-10-batches-py",
            ),
        ),
        contents={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        per_class={"train": (5000,) * 10, "test": (1000,) * 10},
        disk=186,
    ),
    Card(
        name="cifar100",
        title="CIFAR-100",
        train=50_000,
        test=10_000,
        classes=100,
        img_size=32,
        licence="none stated",
        citation=CIFAR_CITATION,
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        folder="cifar-100-python",
        marks=("train", "test", "meta"),
        tree="cifar-100-python/{train,test,meta}",
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
                169,
                "",
                "cifar-100-python",
            ),
        ),
        contents={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        per_class={"train": (500,) * 100, "test": (100,) * 100},
        disk=187,
    ),
    Card(
        name="flowers",
        title="Flowers102",
        train=1020,
        val=1020,
        test=6149,
        trains_on_val=True,
        classes=102,
        class_names=FLOWERS,
        img_size=224,
        licence="none stated",
        citation="Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008",
        homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        folder="flowers-102",
        marks=("jpg", "imagelabels.mat", "setid.mat"),
        tree="flowers-102/jpg/image_00001.jpg ... image_08189.jpg, flowers-102/{imagelabels,setid}.mat",
        downloads=(
            Download(
                "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
                "52808999861908f626f3c1f4e79d11fa",
                345,
                "flowers-102",
                "jpg",
            ),
            Download(
                "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
                "e0620be6f572b9609742df49c70aed4d",
                0.001,
                "flowers-102",
            ),
            Download(
                "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/setid.mat",
                "a5357ecc9cb78c4bef273ce3793fc85c",
                0.015,
                "flowers-102",
            ),
        ),
        per_class={"train": (10,) * 102, "val": (10,) * 102},
        disk=350,
        note="Table 9 trains on the official train + val, 1,020 + 1,020 = 2,040",
    ),
    Card(
        name="svhn",
        title="SVHN",
        train=73_257,
        test=26_032,
        classes=10,
        class_names=DIGIT_NAMES,
        img_size=32,
        licence="for non-commercial use only",
        citation="Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011",
        homepage="http://ufldl.stanford.edu/housenumbers/",
        folder="svhn",
        marks=("train_32x32.mat", "test_32x32.mat"),
        tree="svhn/{train,test}_32x32.mat (the additional extra_32x32.mat is not used)",
        downloads=(
            Download(
                "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
                "e26dedcc434d2e4c54c9b2d4a06d8373",
                182,
                "svhn",
            ),
            Download(
                "http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64, "svhn"
            ),
        ),
        per_class={
            "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        },
        disk=246,
    ),
    Card(
        name="imagenet",
        title="ImageNet-1K",
        train=1_281_167,
        test=50_000,
        classes=1000,
        img_size=224,
        licence="terms of access of image-net.org: non-commercial research and education",
        citation="Deng et al., ImageNet, CVPR 2009; Russakovsky et al., ILSVRC, IJCV 2015",
        homepage="https://www.image-net.org/",
        folder="imagenet",
        marks=("train", "val"),
        tree="imagenet/train/<wnid>/*.JPEG, imagenet/val/<wnid>/*.JPEG",
        request=(
            "sign in at https://www.image-net.org/download.php, accept the terms, download ILSVRC2012_img_train.tar"
            " (138 GB), ILSVRC2012_img_val.tar (6.3 GB) and ILSVRC2012_devkit_t12.tar.gz of ILSVRC 2012, put them into"
            " data.root and repeat the command, which unpacks them"
        ),
        per_class={"test": (50,) * 1000},
        disk=155_000,
        note=(
            "Table 9 prints 100,000 test images, the size of the official test set, whose labels are not public;"
            " the authors' code evaluates on the 50,000 validation images"
        ),
    ),
    _domainnet("clipart", "ClipArt", (33_525, 14_604), 1_270, cleaned=True, note=""),
    _domainnet("infograph", "Infograph", (36_023, 15_582), 4_340, cleaned=False, note=""),
    _domainnet(
        "sketch",
        "Sketch",
        (48_212, 20_916),
        2_700,
        cleaned=False,
        note=(
            "Table 9 prints 50,416 + 21,850, which are the sizes of DomainNet's painting lists;"
            " the official sketch lists have 48,212 + 20,916"
        ),
    ),
    Card(
        name="chaoyang",
        title="Chaoyang",
        train=4021,
        test=2139,
        classes=4,
        class_names=("normal", "serrated", "adenocarcinoma", "adenoma"),
        img_size=512,
        licence="non-commercial use with citation, no redistribution",
        citation=(
            "Zhu et al., Hard Sample Aware Noise Robust Learning for Histopathology Image Classification, IEEE TMI 2021"
        ),
        homepage="https://bupt-ai-cz.github.io/HSA-NRL/",
        folder="chaoyang",
        also="chaoyang-data",
        marks=("train.json", "test.json"),
        tree="chaoyang/train.json, chaoyang/test.json, chaoyang/train/*.JPG, chaoyang/test/*.JPG",
        request=(
            "ask for it as https://bupt-ai-cz.github.io/HSA-NRL/ says (contact: czhu@bupt.edu.cn), unpack"
            " chaoyang-data/ or chaoyang/ into data.root and repeat the command"
        ),
        per_class={"train": (1111, 842, 1404, 664), "test": (705, 321, 840, 273)},
    ),
    Card(
        name="pmnist",
        title="PMNIST",
        train=4708,
        val=524,
        test=624,
        trains_on_val=True,
        classes=2,
        class_names=("normal", "pneumonia"),
        img_size=28,
        licence="CC BY 4.0",
        citation="Yang et al., MedMNIST v2, Scientific Data 2023; Kermany et al., Cell 2018",
        homepage="https://medmnist.com/",
        folder="pneumoniamnist",
        marks=("pneumoniamnist.npz",),
        tree="pneumoniamnist/pneumoniamnist.npz, or the file itself in data.root",
        downloads=(
            Download(
                "https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",
                "28209eda62fecd6e6a2d98b1501bb15f",
                4.2,
                "pneumoniamnist",
            ),
        ),
        disk=5,
        note="Table 9 trains on the official train + val, 4,708 + 524 = 5,232",
    ),
)

CATALOG = {card.name: card for card in _CARDS}
