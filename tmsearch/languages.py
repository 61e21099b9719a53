"""Languages: every name that people write -> Whisper's one code, and which are written with combining marks."""

from __future__ import annotations

import difflib
import re

# code, English name, then other names: ISO 639-2 and 639-3 codes, older and other 639-1 codes, other English names.
# Codes and names are openai/whisper's tokenizer.py (a test holds them against transformers).
_TABLE = """
en english eng
zh chinese zho chi cmn mandarin
de german deu ger
es spanish spa castilian
ru russian rus
ko korean kor
fr french fra fre
ja japanese jpn jp
pt portuguese por
tr turkish tur
pl polish pol
ca catalan cat valencian
nl dutch nld dut flemish
ar arabic ara arb
sv swedish swe
it italian ita
id indonesian ind in
hi hindi hin
fi finnish fin
vi vietnamese vie
he hebrew heb iw
uk ukrainian ukr
el greek ell gre
ms malay msa may zsm
cs czech ces cze
ro romanian ron rum mo mol moldavian moldovan
da danish dan
hu hungarian hun
ta tamil tam
no norwegian nor nb nob bokmal bokmål
th thai tha
ur urdu urd
hr croatian hrv
bg bulgarian bul
lt lithuanian lit
la latin lat
mi maori mri mao
ml malayalam mal
cy welsh cym wel
sk slovak slk slo
te telugu tel
fa persian fas per pes farsi
lv latvian lav lvs
bn bengali ben bangla
sr serbian srp
az azerbaijani aze azj
sl slovenian slv slovene
kn kannada kan
et estonian est ekk
mk macedonian mkd mac
br breton bre
eu basque eus baq
is icelandic isl ice
hy armenian hye arm
ne nepali nep npi
mn mongolian mon khk
bs bosnian bos
kk kazakh kaz
sq albanian sqi alb als
sw swahili swa swh
gl galician glg
mr marathi mar
pa punjabi pan panjabi
si sinhala sin sinhalese
km khmer khm
sn shona sna
yo yoruba yor
so somali som
af afrikaans afr
oc occitan oci
ka georgian kat geo
be belarusian bel
tg tajik tgk
sd sindhi snd
gu gujarati guj
am amharic amh
yi yiddish yid ji
lo lao
uz uzbek uzb uzn
fo faroese fao
ht haitian_creole hat haitian
ps pashto pus pushto pbt
tk turkmen tuk
nn nynorsk nno
mt maltese mlt
sa sanskrit san
lb luxembourgish ltz letzeburgesch
my myanmar mya bur burmese
bo tibetan bod tib
tl tagalog tgl fil filipino
mg malagasy mlg plt
as assamese asm
tt tatar tat
haw hawaiian
ln lingala lin
ha hausa hau
ba bashkir bak
jw javanese jv jav
su sundanese sun
yue cantonese zh-yue
"""
_ROWS = [[name.replace("_", " ") for name in line.split()] for line in _TABLE.strip().splitlines()]
NAMES = {row[0]: row[1] for row in _ROWS}  # English name by Whisper's code
_CODES = {name: row[0] for row in _ROWS for name in row}

# Written without spaces between words, so that a "word" is a character: Radford et al. 2022, appendix C, and
# Cantonese, which large-v3 added.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
# Written with marks that Unicode does not compose with their letters: vowel signs and viramas of the Brahmic scripts,
# vowel points of Arabic and Hebrew, tone marks of Yoruba and Lingala. Whisper's basic normalizer makes each a space.
MARKED = frozenset(
    "hi mr ne sa bn as gu pa ta te kn ml si th lo my km bo su ar fa ur ps sd he yi yo ln".split()  # noqa: SIM905
)


def language_code(name: str) -> str:
    """Whisper's code of a language, such as `ja` of `ja`, `jpn`, `ja-JP`, `Japanese`; `jw` of `jv`.

    Raises:
        ValueError: Whisper knows no such language; its text is a person's next step.
    """
    text = " ".join(name.strip().lower().split())
    for candidate in (text, text.replace("_", "-"), re.split(r"[-_]", text)[0]):
        if candidate in _CODES:
            return _CODES[candidate]
    close = difflib.get_close_matches(text, [word for word in _CODES if len(word) > 3], 1)
    hint = f"did you mean {_CODES[close[0]]} ({close[0]})?" if close else "give a code such as en, de or ko"
    raise ValueError(f"not a language that Whisper knows; {hint}")


def code_if_known(name: str) -> str:
    """As `language_code`, but what is no language's name stays, in lower case."""
    try:
        return language_code(name)
    except ValueError:
        return name.strip().lower()


def usual_normalizer(code: str) -> str:
    """What the texts of a language go through if nothing else is asked for, one of config.NORMALIZERS."""
    return "marks" if code in MARKED else "whisper"
