"""Of whom each preset of the embedded voice is made, and who of the listeners took part in its training."""

# Preset: the teacher's voice that it learnt from, or None for a person. The first is the default.
PRESETS: dict[str, str | None] = {
    "alma": "Kokoro af_heart",
    "bruno": "Kokoro am_michael",
    "clara": "Kokoro af_kore",
    "edith": "Kokoro bf_emma",
    "felix": "Kokoro bm_fable",
    "hugo": "Kokoro bm_george",
    "kathleen": None,
}
READER = "kathleen"  # the preset of a person, whose clips `--reader` names

# What taught the voice is named here, beside its figures.
LABELS = {
    "whisper": "Whisper tiny (its encoder taught the codec)",
    "pocketsphinx": "PocketSphinx",
    "distillmos": "DistillMOS",
    "dnsmos": "DNSMOS",
    "campplus": "CAM++",
    "resemblyzer": "Resemblyzer",
}
