"""Genes that are known to carry responses to drugs, by what they do: for a view of their own.

A kernel over thousands of genes gives each of them the same small weight, and the pump that carries a drug out of the
cell no more than any other. The list is what pharmacology's textbooks and reviews name: pumps and carriers, enzymes
that make a drug active or harmless, targets with the pathways around them and their feedback genes, those that decide
on death, repair, and the regulators of lineages. It was written down from what the drugs are known to do, and as a
whole judged by leave-one-out error on training and validation lines; no gene of it was chosen by a test.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUPS = {
    "pumps and carriers": "ABCB1 ABCG2 ABCC1 ABCC2 ABCC3 SLC29A1 SLC19A1 SLC35F2 SLCO1B3 SLC7A11",
    "enzymes of drugs": "NQO1 TYMS DHFR RRM1 RRM2 DCK CDA CYP1B1 ALDH1A1 UGT1A6 GSTP1 AKR1C1 AKR1B10 G6PD NAMPT NAPRT1 "
    "NAPRT IDO1 MGMT",
    "death": "BCL2 BCL2L1 MCL1 BCL2A1 BAX BCL2L11 BBC3 PMAIP1 BID XIAP BIRC3 BIRC5 CASP8 CASP3 TNFRSF10B TNFRSF10A "
    "TRAF2",
    "damage and repair": "SLFN11 MDM2 MDM4 CDKN1A PARP1 BRCA1 BRCA2 ATM ATR CHEK1 CHEK2 WEE1 TOP1 TOP2A TOP2B MLH1 "
    "MSH2 ERCC1 XPA",
    "cycle": "CDKN2A CDKN1B CCND1 CCND2 CCND3 CCNE1 CDK4 CDK6 CDK2 E2F1 RB1 MYC MYCN MYCL PLK1 AURKA AURKB TTK KIF11",
    "spindle": "TUBB TUBB3 TUBB6 MAP4 STMN1",
    "receptors": "EGFR ERBB2 ERBB3 ERBB4 MET AXL KIT PDGFRA PDGFRB FGFR1 FGFR2 FGFR3 FGFR4 FGF2 IGF1R INSR IGFBP3 IRS1 "
    "IRS2 IGF2 KDR FLT3 FLT1 ALK RET ROS1 NTRK1 DDR1 DDR2 EPHA2 TGFBR2",
    "kinases inside": "SRC LCK LYN BTK SYK ABL1 JAK2 RPS6KA1 RPS6KA3 PRKCA PIM1 PIM2 PIM3 SGK1",
    "RAS and its feedback": "KRAS NRAS HRAS BRAF RAF1 MAP2K1 DUSP4 DUSP5 DUSP6 SPRY2 SPRY4 SPRED1 ETV4 ETV5 PHLDA1",
    "PI3K and growth": "PIK3CA PIK3CD PIK3CG PIK3R1 PTEN AKT1 AKT2 AKT3 TSC1 MTOR RPTOR RICTOR DDIT4 FOXO1 FOXO3",
    "signals to the nucleus": "STAT3 STAT5A SOCS2 SOCS3 IKBKB NFKBIA RELA IL6 CXCL8 IL8 SMO GLI1 PTCH1 NOTCH1 NOTCH3 "
    "HES1 CTNNB1 AXIN2 TNKS LGR5 SMAD4 YAP1 CYR61 CTGF AMOTL2 LATS2 CAV1 CAV2 ANXA1",
    "stress": "HSP90AA1 HSPA1A NFE2L2 KEAP1 GPX4 TXNRD1 HMOX1",
    "chromatin": "HDAC1 HDAC2 HDAC6 EZH2 BRD4 DOT1L KDM1A DNMT1 TET2",
    "lineage": "VIM CDH1 ZEB1 ZEB2 SNAI2 EPCAM MITF SOX10 AR ESR1 PGR RARA VDR NR3C1 GATA3 ASCL2 ASCL1 WT1 LMO2 CD19 "
    "CD79A CD79B PTPRC MS4A1 SPI1 CEBPA HOXA9 MEIS1 GFI1 TP63 KRT5 SOX2 NKX2-1 CHGA INSM1 NEUROD1 POU2F3 CD44 MSLN "
    "AGR2 HNF1B HNF4A CDX2 VIL1",
    "fat and sterols": "PPARG FASN SCD ACLY HMGCR LDLR SQLE",
}
TARGETS = frozenset(gene for genes in GROUPS.values() for gene in genes.split())


def targets(genes: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the places of listed genes among others."""
    return np.flatnonzero([str(gene) in TARGETS for gene in genes])
