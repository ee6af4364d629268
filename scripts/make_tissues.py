"""Make ``src/cellingua/data/words/tissues.tsv``: which cell types have evidence in which organ.

Run as ``python scripts/make_tissues.py``. The evidence for an organ is, in this order:

1. kinds that belong to it with all that lies below them in the Cell Ontology (``ROOTS``), reviewed by hand;
2. terms whose name, synonym or first sentence of the definition names the organ or a part of it (``PATTERNS``);
3. single terms from general knowledge (``EXTRAS``), reviewed by hand.

The row ``everywhere`` holds what any tissue can have: blood, immune cells, vessels, stroma, nerves, tumour cells; not
the kinds of these that are tied to an organ. The ids of mean profiles and marker tables were not used: most were
given by a name rule, and many of them are wrong. All text is of the Cell Ontology (CC BY 4.0) or our own.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from cellingua.words.ontology import load_ontology

OUT = Path(__file__).resolve().parents[1] / "src/cellingua/data/words/tissues.tsv"


def names(text: str) -> list[str]:
    """Return the names in a text that `|` divides."""
    return text.split("|")


# UBERON name -> pattern that names the organ or a part of it.
PATTERNS = {
    "pancreas": r"pancrea|islet",
    "islet of Langerhans": r"pancreatic (a|b|d|pp|epsilon|islet|endocrine|beta|alpha|delta)\b|islet",
    "lung": r"\blung|pulmonary|alveol(ar|us) (cap|type|macro|epi|adv|sac)|bronch|respiratory|\bairway|club cell",
    "trachea": r"trachea|respiratory|\bairway",
    "nose": r"\bnasal|olfactory (epi|sens|rec|mucosa)|respiratory tract",
    "liver": r"\bliver|hepatic|hepato|kupffer|cholangio|bile duct|biliary",
    "gallbladder": r"gallbladder|cholangio|bile duct|biliary",
    "kidney": r"kidney|\brenal\b|nephr|glomerul|\bloop of henle|mesangial|podocyte|ureteric bud|"
    r"juxtaglom|macula densa",
    "ureter": r"\bureter\b|urothel",
    "urinary bladder": r"(?<!gall)bladder|urinary|urothel|umbrella cell",
    "heart": r"\bheart|cardi(?!a gland|ac gland)|cardiomy|myocard|atrial|ventricular card|sinoatrial|coronary|aort",
    "aorta": r"\baort",
    "blood vessel": r"arter(y|ial|iol)|\bvein|venous|venul|capillary|vascular|aort",
    "brain": r"brain|cortex of|cortical|cerebr|hippocamp|thalam|striat(um|al)|midbrain|forebrain|"
    r"hindbrain|amygdal|pallidal|"
    r"substantia nigra|choroid plexus|mening|ependym|tanycyte|glutamatergic|gabaergic|microgl|purkinje cell|neocort",
    "cerebral cortex": r"neocort|cortical (?!thym|epith|cell of)|cerebral cortex|intratelenceph|extratelenceph|"
    r"corticothal|near-projecting|primary motor cortex|chandelier|martinotti|\bL[1-6]",
    "hippocampal formation": r"hippocamp|dentate|\bCA[1-4]",
    "cerebellum": r"cerebell|purkinje cell|bergmann|golgi cell|unipolar brush|candelabrum",
    "midbrain": r"midbrain|substantia nigra|tegment",
    "striatum": r"striat(um|al)|medium spiny|caudate|putamen|accumbens",
    "hypothalamus": r"hypothal|tanycyte|arcuate nucleus|kisspeptin|vasopressin|oxytocin|agouti",
    "spinal cord": r"spinal cord|motor neuron|dorsal horn|ventral horn",
    "dorsal root ganglion": r"dorsal root ganglion|satellite glial|nocicept",
    "pituitary gland": r"pituitar|pars (distalis|tuberalis|nervosa)|somatotrop|lactotrop|corticotrop|"
    r"thyrotrop|gonadotrop",
    "pineal gland": r"pineal",
    "retina": r"retina|amacrine|retinal|mueller|photoreceptor|parasol|midget|horizontal cell$|bipolar cell|cone cell",
    "eye": r"retina|cornea|conjunctiv|\blens\b|\biris|trabecular|schlemm|ciliary body|choroid(?! plexus)|sclera|"
    r"amacrine|mueller|photoreceptor|parasol|midget|horizontal cell$|cone cell|lacrimal|uvea|optic",
    "ear": r"cochlea|vestibular|inner ear|hair cell|organ of corti|stria vascularis|spiral ligament|tympanic|deiter",
    "intestine": r"intestin|\bcolon(ic|ocyte)?\b|ileal|jejun|duoden|enterocyte|enteroendo|"
    r"crypt of lieber|paneth|rectum|\bgut\b|"
    r"appendix|caecum|cecum|enteric|enteroglial",
    "small intestine": r"small intestin|ileal|ileum|jejun|duoden|enterocyte$|paneth|intestinal (crypt|villus|tuft)",
    "colon": r"\bcolon(ic|ocyte)?\b|large intestin|rectum|anorect|colonocyte|sigmoid",
    "stomach": r"stomach|gastric|peptic|parietal cell|foveolar|pylor|oxyntic|mucous neck",
    "esophagus": r"esophag",
    "mouth": r"\boral|tongue|taste|gingiv|tooth|dental|odonto|amelo|cemento|periodont|buccal|palat",
    "saliva-secreting gland": r"saliva|parotid|submandib|sublingual",
    "skin of body": r"\bskin|epiderm|\bdermis|\bdermal|keratinocyte|melanocyt|hair (follicle|shaft|"
    r"matrix|cortex|cuti)|sebace"
    r"|sebocyt|sweat|eccrine|apocrine|merkel|langerhans cell|nail|cutaneous|outer root|inner root",
    "breast": r"breast|mammary|lactif|lactocyte|luminal .*mamm",
    "prostate gland": r"prostat",
    "testis": r"testis|testic|sertoli|leydig|spermat|sperm\b|male germ|seminifer|peritubular myoid|male gonocyte",
    "epididymis": r"epididym",
    "ovary": r"ovar|granulosa|theca|luteal|lutein|oocyte|oogon|cumulus|follicular cell of ov|female germ",
    "uterus": r"uter(us|ine)|endometri|myometri|cervi(x|cal (?!spinal|dorsal|sinus|thym))|decidu",
    "fallopian tube": r"fallopian|oviduct|uterine tube",
    "vagina": r"\bvagin",
    "placenta": r"placent|trophobl|chori(on|onic)|hofbauer|amnio|decidu|umbilic|syncytio",
    "bone marrow": r"bone marrow|marrow|blast\b.*hematop|megakaryo|osteoclast",
    "blood": r"peripheral blood|\bblood cell",
    "lymph node": r"lymph node|follicular dendritic|germinal center|reticular cell|high endothelial|"
    r"follicular helper",
    "spleen": r"splen|marginal zone",
    "thymus": r"thym(?!us-derived)",
    "tonsil": r"tonsil|germinal center|follicular dendritic",
    "adipose tissue": r"adipo|\bfat cell|lipoblast",
    "skeletal muscle tissue": r"skeletal muscle|satellite cell|myoblast|myotube|muscle spindle|extrafusal|intrafusal|"
    r"(fast|slow|type i+\w?) muscle|fiber\b.*muscle|muscle fiber",
    "tendon": r"\btendon|tenocyte",
    "bone tissue": r"\bbone\b(?! marrow)|osteo|skeletogenic|periost",
    "cartilage tissue": r"chondro|cartilag",
    "synovial joint": r"synov|chondro|\barticul",
    "thyroid gland": r"(?<!para)\bthyroid(?! hormone)|parafollicular",
    "parathyroid gland": r"parathyroid|chief cell of para|oxyphil",
    "adrenal gland": r"adrenal|chromaffin|zona (glom|fasc|ret)|cortical cell of adrenal|sympathobl|medullary chrom",
    "embryo": r"embryo|epiblast|mesoderm|endoderm|ectoderm|neural crest|somite|primitive (streak|red)|yolk sac|"
    r"notochord|trophectoderm|inner cell mass|neural plate|hypoblast|gastrula|blastoderm|migratory .* crest",
    "peritoneum": r"periton|mesothel|oment",
    "pleura": r"pleura|mesothel",
}

# Kinds that belong to an organ with all that lies below them.
ROOTS = {
    "pancreas": ["pancreatic endocrine cell", "pancreatic acinar cell", "pancreatic ductal cell"],
    "islet of Langerhans": ["pancreatic endocrine cell"],
    "lung": ["epithelial cell of lung", "epithelial cell of lower respiratory tract"],
    "liver": ["hepatocyte", "cholangiocyte", "Kupffer cell"],
    "kidney": ["kidney cell"],
    "heart": ["cardiac muscle cell"],
    "brain": [
        "central nervous system neuron",
        "glial cell",
        "neural progenitor cell",
        "neuroblast (sensu Vertebrata)",
    ],
    "cerebral cortex": ["astrocyte", "oligodendrocyte", "oligodendrocyte precursor cell", "microglial cell"],
    "retina": [
        "retinal cell",
        "retinal ganglion cell",
        "photoreceptor cell",
        "amacrine cell",
        "retinal bipolar neuron",
    ],
    "intestine": ["intestinal epithelial cell", "enteroendocrine cell"],
    "skin of body": ["keratinocyte", "melanocyte", "skin fibroblast"],
    "testis": ["male germ cell"],
    "ovary": ["female germ cell", "granulosa cell", "theca cell"],
    "placenta": ["trophoblast cell"],
    "bone marrow": ["hematopoietic precursor cell", "erythroid lineage cell", "megakaryocyte"],
    "blood": ["leukocyte", "erythroid lineage cell", "platelet", "hematopoietic precursor cell"],
    "lymph node": ["lymphocyte", "dendritic cell"],
    "spleen": ["lymphocyte"],
    "thymus": ["thymocyte", "thymic epithelial cell"],
    "adipose tissue": ["adipocyte"],
    "bone tissue": ["osteoblast", "osteoclast", "osteocyte"],
    "cartilage tissue": ["chondrocyte"],
}

EXTRAS = {
    "pancreas": ["pancreatic stellate cell", "acinar cell", "duct epithelial cell", "exocrine cell", "Schwann cell"],
    "lung": names(
        "club cell|ciliated cell|goblet cell|basal cell|respiratory basal cell|"
        "mesothelial cell|tuft cell|ionocyte|"
        "secretory cell|serous secreting cell|mucus secreting cell|neuroendocrine cell|deuterosomal cell|"
        "multi-ciliated epithelial cell|ciliated epithelial cell"
    ),
    "trachea": names(
        "club cell|ciliated cell|goblet cell|basal cell|tuft cell|ionocyte|"
        "serous secreting cell|chondrocyte|"
        "mucus secreting cell|multi-ciliated epithelial cell|myoepithelial cell"
    ),
    "nose": ["ciliated cell", "goblet cell", "basal cell", "club cell", "olfactory receptor cell", "tuft cell"],
    "liver": ["hepatic stellate cell", "endothelial cell of hepatic sinusoid", "hepatoblast", "mesothelial cell"],
    "urinary bladder": ["basal cell", "transitional epithelial cell"],
    "heart": ["mesothelial cell of epicardium", "endocardial cell", "adipocyte", "Purkinje myocyte"],
    "brain": names(
        "neuron|astrocyte|oligodendrocyte|oligodendrocyte precursor cell|microglial cell|"
        "ependymal cell|granule cell"
        "|radial glial cell|vascular leptomeningeal cell|interneuron|pyramidal neuron|choroid plexus epithelial cell|"
        "Cajal-Retzius cell|neural stem cell|glioblast|dopaminergic neuron|serotonergic neuron|cholinergic neuron|"
        "noradrenergic neuron|motor neuron|GABAergic neuron|glutamatergic neuron"
    ),
    "cerebral cortex": names(
        "neuron|interneuron|pyramidal neuron|GABAergic neuron|glutamatergic neuron|"
        "Cajal-Retzius cell|"
        "radial glial cell|vascular leptomeningeal cell|sst GABAergic interneuron|pvalb GABAergic interneuron|"
        "VIP GABAergic interneuron|lamp5 GABAergic interneuron|sncg GABAergic interneuron|ependymal cell"
    ),
    "cerebellum": names(
        "granule cell|neuron|interneuron|astrocyte|oligodendrocyte|oligodendrocyte precursor cell|"
        "microglial cell|GABAergic neuron|glutamatergic neuron|ependymal cell"
    ),
    "hippocampal formation": names(
        "granule cell|neuron|interneuron|astrocyte|oligodendrocyte|pyramidal neuron|"
        "oligodendrocyte precursor cell|microglial cell|GABAergic neuron|glutamatergic neuron|ependymal cell"
    ),
    "midbrain": names(
        "neuron|dopaminergic neuron|astrocyte|oligodendrocyte|"
        "oligodendrocyte precursor cell|microglial cell|"
        "GABAergic neuron|glutamatergic neuron|serotonergic neuron|radial glial cell|neural progenitor cell|"
        "neuroblast (sensu Vertebrata)|ependymal cell|motor neuron"
    ),
    "striatum": names(
        "neuron|astrocyte|oligodendrocyte|oligodendrocyte precursor cell|microglial cell|"
        "cholinergic neuron|"
        "GABAergic neuron|GABAergic interneuron|ependymal cell"
    ),
    "hypothalamus": names(
        "neuron|astrocyte|oligodendrocyte|oligodendrocyte precursor cell|"
        "microglial cell|ependymal cell|"
        "GABAergic neuron|glutamatergic neuron|dopaminergic neuron"
    ),
    "spinal cord": names(
        "neuron|astrocyte|oligodendrocyte|oligodendrocyte precursor cell|"
        "microglial cell|ependymal cell|"
        "interneuron|GABAergic neuron|glutamatergic neuron"
    ),
    "dorsal root ganglion": ["neuron", "sensory neuron", "Schwann cell"],
    "eye": ["melanocyte", "goblet cell", "retinal pigment epithelial cell", "Schwann cell", "keratocyte"],
    "retina": ["retinal pigment epithelial cell", "Mueller cell", "astrocyte", "microglial cell"],
    "intestine": names(
        "enterocyte|goblet cell|tuft cell|paneth cell|M cell of gut|transit amplifying cell|stem cell|"
        "enteric neuron|enteroglial cell|interstitial cell of Cajal|mesothelial cell|BEST4+ enterocyte"
    ),
    "small intestine": names(
        "enterocyte|goblet cell|tuft cell|paneth cell|M cell of gut|"
        "transit amplifying cell|stem cell|"
        "enteroendocrine cell|enteric neuron|enteroglial cell|interstitial cell of Cajal|BEST4+ enterocyte"
    ),
    "colon": names(
        "enterocyte|goblet cell|tuft cell|colonocyte|M cell of gut|transit amplifying cell|"
        "stem cell|enteric neuron|"
        "enteroglial cell|interstitial cell of Cajal|enteroendocrine cell|BEST4+ enterocyte"
    ),
    "stomach": names(
        "goblet cell|enteroendocrine cell|type G enteroendocrine cell|type D enteroendocrine cell|"
        "enterochromaffin-like cell|type EC enteroendocrine cell|tuft cell|mesothelial cell|enteric neuron|"
        "interstitial cell of Cajal|surface mucosal cell of stomach"
    ),
    "esophagus": ["squamous epithelial cell", "basal cell", "mucus secreting cell", "keratinocyte", "suprabasal cell"],
    "mouth": ["squamous epithelial cell", "keratinocyte", "basal cell", "melanocyte", "suprabasal cell"],
    "saliva-secreting gland": ["acinar cell", "duct epithelial cell", "myoepithelial cell", "mucus secreting cell"],
    "skin of body": [
        "Langerhans cell",
        "Merkel cell",
        "basal cell",
        "suprabasal cell",
        "adipocyte",
        "myoepithelial cell",
    ],
    "breast": ["luminal epithelial cell of mammary gland", "myoepithelial cell", "basal cell", "adipocyte"],
    "prostate gland": [
        "basal cell",
        "hillock cell",
        "club cell",
        "neuroendocrine cell",
        "hillock cell of urethral epithelium",
        "club-like cell of the urethral epithelium",
        "hillock cell of prostatic urethral epithelium",
    ],
    "testis": ["Sertoli cell", "Leydig cell", "peritubular myoid cell", "germ cell"],
    "ovary": ["germ cell", "mesothelial cell", "luteal cell"],
    "uterus": ["decidual cell", "ciliated epithelial cell", "squamous epithelial cell"],
    "fallopian tube": ["ciliated epithelial cell", "secretory cell", "multi-ciliated epithelial cell"],
    "placenta": ["Hofbauer cell", "decidual cell", "decidual pericyte", "decidual natural killer cell, human"],
    "bone marrow": ["mesenchymal stem cell", "osteoblast", "adipocyte", "hematopoietic stem cell", "plasma cell"],
    "blood": ["peripheral blood mononuclear cell", "hematopoietic stem cell", "megakaryocyte"],
    "thymus": [
        "thymocyte",
        "thymic epithelial cell",
        "medullary thymic epithelial cell",
        "cortical thymic epithelial cell",
    ],
    "adipose tissue": ["preadipocyte", "adipocyte", "mesothelial cell", "mesenchymal stem cell of adipose tissue"],
    "skeletal muscle tissue": [
        "skeletal muscle satellite cell",
        "myoblast",
        "tendon cell",
        "cell of skeletal muscle",
        "skeletal muscle fiber",
        "muscle cell",
    ],
    "tendon": ["tendon cell", "chondrocyte"],
    "synovial joint": ["chondrocyte", "synovial cell", "fibroblast"],
    "adrenal gland": ["chromaffin cell", "Schwann cell", "neuroblast (sensu Vertebrata)"],
    "embryo": [
        "epiblast cell",
        "trophectodermal cell",
        "trophoblast cell",
        "primordial germ cell",
        "stem cell",
        "zygote",
        "hematopoietic precursor cell",
        "primitive red blood cell",
        "neural progenitor cell",
    ],
}

LYMPHOID = {"blood", "lymph node", "spleen"}
# With all below them, unless tied to an organ.
EVERYWHERE_ROOTS = ["leukocyte", "erythroid lineage cell", "platelet", "endothelial cell", "pericyte"]
EVERYWHERE = names(
    "hematopoietic cell|myeloid cell|megakaryocyte|hematopoietic stem cell|hematopoietic precursor cell|fibroblast|"
    "myofibroblast cell|smooth muscle cell|vascular associated smooth muscle cell|mural cell|perivascular cell|"
    "mesenchymal stem cell|mesenchymal cell|stromal cell|adipocyte|Schwann cell|mesothelial cell|epithelial cell|"
    "connective tissue cell|muscle cell|glial cell|neuron|neural cell|malignant cell|neoplastic cell|"
    "peripheral blood mononuclear cell|blood cell|circulating fibrocyte|stem cell|progenitor cell|"
    "adventitial cell"
)


def mentions(term_id: str, pattern: re.Pattern[str]) -> bool:
    """Return whether the name, a synonym, or the first sentence of the definition of a term matches."""
    ontology = load_ontology("CL")
    if any(pattern.search(text) for text in (ontology.name(term_id), *ontology.synonyms(term_id))):
        return True
    first = re.split(r"(?<=[a-z\)])\.\s", ontology.definition(term_id))[0]
    return term_id not in tied_to_organ() and bool(pattern.search(first))


def terms_of(organ: str) -> set[str]:
    """Return all CL terms with evidence in an organ."""
    ontology = load_ontology("CL")
    pattern = re.compile(PATTERNS[organ], re.IGNORECASE)
    found = {i for i in ontology.ids if ontology.in_human(i) and mentions(i, pattern)}
    for name in ROOTS.get(organ, ()):
        root = ontology.find(name)
        if root is None:
            raise SystemExit(f"{organ}: no term named {name!r}")
        below = {root} | {i for i in ontology.descendants(root) if ontology.in_human(i)}
        # An alveolar macrophage is a leukocyte, and yet not of the blood.
        found |= below - tied_to_organ() if organ in LYMPHOID else below
    for name in EXTRAS.get(organ, ()):
        term = ontology.find(name)
        if term is None:
            raise SystemExit(f"{organ}: no term named {name!r}")
        found.add(term)
    return found


@cache
def tied_to_organ() -> set[str]:
    """Return terms whose own name says where they are, so that they aren't everywhere."""
    ontology = load_ontology("CL")
    skip = {"blood", "blood vessel", "lymph node", "bone marrow", "embryo", "peritoneum", "pleura"}
    text = "|".join(f"(?:{p})" for organ, p in PATTERNS.items() if organ not in skip)
    text += "|lymph node|placent|fetal|embryo|hypophys|stalk|umbilic|glia|central nervous|dural|peyer|mucosa"
    text += "|circumventricular|border associated|intraepithelial|langerin|synovial|taste|squamous"
    pattern = re.compile(text, re.IGNORECASE)
    named = {i for i in ontology.ids if pattern.search(ontology.name(i)) and "thymus-derived" not in ontology.name(i)}
    return named


def main() -> None:
    """Write the table and print how many terms each row has."""
    cells, uberon = load_ontology("CL"), load_ontology("UBERON")
    lines = ["uberon_id\tname\tterm_ids"]
    everywhere = set()
    for name in (*EVERYWHERE_ROOTS, *EVERYWHERE):
        term = cells.find(name)
        if term is None:
            raise SystemExit(f"everywhere: no term named {name!r}")
        everywhere.add(term)
        if name in EVERYWHERE_ROOTS:
            everywhere |= {i for i in cells.descendants(term) if cells.in_human(i)} - tied_to_organ()
    lines.append("everywhere\teverywhere\t" + " ".join(sorted(everywhere)))
    for organ in PATTERNS:
        tissue = uberon.find(organ)
        if tissue is None:
            raise SystemExit(f"no UBERON term named {organ!r}")
        terms = terms_of(organ)
        lines.append(f"{tissue}\t{uberon.name(tissue)}\t" + " ".join(sorted(terms)))
        print(f"{organ}: {len(terms)} terms")
    print(f"everywhere: {len(everywhere)} terms")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
