"""Names beside an age, as medical texts give them: 患者张三，男，45岁 or "John Smith, a 45-year-old man".

The age is the anchor. Chinese has no spaces, so the name is what stands before it: one of the common family names (the
hundred most frequent cover 85 % of the people) with one or two more characters.
"""

import re
from collections.abc import Iterator

from tasks.data.personal.signs import ENGLISH_AGE, Locator
from tasks.data.personal.spans import Offsets, without_overlaps

_FAMILY = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范"
    "金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章"
    "鲁岳翟殷詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟"
    "艾尤阳常时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬师和仇栾隋商刁沙荣巫寇桑郎甄丛"
    "仲虞敖巩明佘池查麻苑迟邝"
)
_COMPOUND = "欧阳|上官|司马|诸葛|司徒|皇甫|尉迟|公孙|慕容|令狐|夏侯|东方|端木|南宫|长孙|宇文|轩辕|独孤|百里|呼延"
_NEVER_GIVEN = (
    "的了是在因今男女性岁者某病症炎疹痛肿癌血疸热烧咳疼瘤障位名被把到后前诉就该此龄这那没吗呢儿童科院医诊疗期共约每最较"
    "们所但且其它他她我你您都也还已未仅并则至间级度型族员人现时入"
)
_GIVEN = rf"(?![{_NEVER_GIVEN}])[\u4e00-\u9fff]"
_NAME = rf"(?:(?:{_COMPOUND})(?:{_GIVEN}){{1,2}}|[{_FAMILY}](?:{_GIVEN}){{1,2}})"
_CHINESE_WORDS = (
    "成年 常年 童年 幼年 任何 于是 全部 全体 全身 单身 单亲 高中 金牌 司机 司令 康复 明确 安全 应届 古巴 "
    "方便 和平 温和 简单 高血压 高血脂 高血糖 白内障 黄体 石膏 水肿 麻醉 项目 车祸 路人 商人 农民 党员 "
    "管理 包括 连续 易感 单纯 平均 平素 阳性"
)
_NOT_NAMES = frozenset(_CHINESE_WORDS.split())
_TITLED = re.compile(rf"[{_FAMILY}](?:先生|女士|小姐|太太|大爷|大妈|阿姨|奶奶|爷爷)\Z")

_GAP = r"[\s,，、;；:：(（/|\-]{0,3}"
_SEX = r"(?:(?:性别|性別)[:：]?\s?)?(?:男|女)(?:性|孩|童|婴|生)?"
_AGE = r"(?:(?:年龄|现年|今年|时年|年仅|年)[:：]?\s?)?(?:[0-9]{1,3}|[一二三四五六七八九十百]{1,4})"
_UNIT = r"\s?(?:周岁|岁|歲|歳)"
_SMALL_UNIT = r"\s?(?:周岁|岁|歲|歳|个多?月|月龄|天|日龄)"
# An age with a sex tells a person anywhere; an age alone only after a word that announces one.
_SEX_AND_AGE = re.compile(rf"{_GAP}(?:{_SEX}{_GAP}{_AGE}{_SMALL_UNIT}|{_AGE}{_SMALL_UNIT}{_GAP}{_SEX})")
_ANNOUNCE = (
    "患者姓名|患儿姓名|姓名|患者|病人|病员|患儿|产妇|孕妇|伤者|死者|家属|当事人|受试者|我叫|名叫|叫做|就诊人|住院患者|"
    "接诊|收治|转诊|老人|老师|同学"
)
_ANNOUNCED = re.compile(
    rf"(?:{_ANNOUNCE})[\s:：]{{0,2}}({_NAME}|[{_FAMILY}](?:先生|女士|小姐|太太)){_GAP}(?:{_AGE}{_UNIT}|{_SEX}(?![\u4e00-\u9fff]))"
)
_FIELDS = re.compile(
    rf"姓\s?名[\s:：]{{0,3}}({_NAME})(?![\u4e00-\u9fff])[^\n]{{0,4}}\n?[^\n]{{0,12}}(?:性\s?别|年\s?龄)"
)
_BEGINS_A_CLAUSE = re.compile(rf"(?<![\u4e00-\u9fffA-Za-z0-9])({_NAME})(?:今年|现年|时年){_AGE}{_UNIT}")
_HAN_BEFORE = re.compile(r"[\u4e00-\u9fff·•]{1,12}")
_DOTTED = re.compile(r"[\u4e00-\u9fff]{2,5}[·•][\u4e00-\u9fff]{2,5}\Z")
_NAME_ONLY = re.compile(_NAME)
_HAN_AGES = re.compile("[岁歲歳男女龄别]")
"""Every Chinese age or sex has one of these; a class of characters is what re skips to fastest."""
_HAN_CHARS = 32
_ENGLISH_AGES = Locator(ENGLISH_AGE)
_ENGLISH_CHARS = 72

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿ"
_WORD = rf"[{_UPPER}][{_LOWER}]{{1,19}}+(?:['’\-][{_UPPER}][{_LOWER}]{{1,19}}+)?"
_MIXED = rf"(?:O['’]|Mc|Mac|De|Di|La|Le|Van|D['’])?{_WORD}"
_PERSON = rf"{_MIXED}(?: (?:[A-Z]\.|[A-ZÓ]|{_MIXED}|van|von|de|der|den|la|bin|al|da|del)){{0,3}} {_MIXED}"
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sr|Sra|Mister|Patient|patient|Pt|pt)\.? ?:?\s?"
_OLD = (
    r"(?:(?:[0-9]{1,3}|[a-z]{3,9}(?:[ \-][a-z]{3,5})?)(?:[ \-]years?[ \-]olds?|[ \-]yrs?[ \-]old|[ \-]y\.?/?o\b|"
    r"[ \-]months?[ \-]old| (?:year|yr)s? of age)|[0-9]{1,3}y\.?/?o\b)"
)
_SEX_EN = r"(?:male|female|man|woman|boy|girl|gentleman|lady|M|F)\b"
_ENGLISH = re.compile(
    rf"(?<![A-Za-z])(?:(?P<title>{_TITLE})(?P<titled>{_PERSON}|{_MIXED})|(?P<bare>{_PERSON}))"
    rf"(?:['’]s)?(?:,? (?:who )?(?:is|was)(?: now)?|,| ?[(\[]| [\-–—])? ?(?:an? |the |now )?"
    rf"(?:{_OLD}|\b(?:aged?|age:|Age:|Age) ?:?[0-9]{{1,3}}\b|[0-9]{{1,3}}[,/]? ?{_SEX_EN}"
    rf"|\b{_SEX_EN}[,/]? ?(?:aged? )?[0-9]{{1,3}}\b(?![:.]))"
)
_AGE_FIRST = re.compile(
    rf"\b[0-9]{{1,3}}(?:[ \-]years?[ \-]old|[ \-]?y/?o)(?: [a-z]{{3,12}}){{0,3}},?"
    rf" (?:named |called |by the name of )?(?P<bare>{_PERSON})(?![A-Za-z])"
)
_FIELDS_EN = re.compile(
    rf"\b(?:[Pp]atient )?[Nn]ame\s?:\s?(?P<bare>{_PERSON})"
    rf"(?=[\s,;|/]{{1,4}}(?:[Aa]ge|[Ss]ex|[Gg]ender|DOB)\b)"
)
_FIRST_WORDS = (
    "The This That These Those A An In On At By For From With When While After Before Our Their His Her "
    "My Your Case Consider Suppose Imagine Patient Patients Mr Mrs Ms Dr Prof Monday Tuesday Wednesday "
    "Thursday Friday Saturday Sunday January February March April May June July August September October "
    "November December New North South East West United San Los Saint St Great Hong If Since Although "
    "However Most Many Some Any Each Every Both Adult Male Female Children Adults Women Men Chief History "
    "Past Present Medical Emergency General Intensive Type Stage Grade Python Java Windows Version "
    "Chapter Section Figure Table Question Answer Old Young Middle Elderly Healthy Caucasian African "
    "Asian Hispanic White Black American Chinese Japanese Indian British German French"
)
_NOT_A_FIRST_WORD = frozenset(_FIRST_WORDS.split())
_OTHER_WORDS = (
    "Blood Heart Lung Liver Kidney Breast Chest Body Pulse Temperature Weight Height Diabetes "
    "Hypertension Asthma Cancer Pressure Rate Fever Pain Cough Surgery Treatment Therapy Diagnosis "
    "Symptoms Age Sex Gender Years Participants Subjects York City Street Road Avenue Hospital Clinic "
    "University College School Center Centre Department Unit Ward Company Bank Park River Lake County "
    "State States Kingdom America Africa China Asia Europe Syndrome Disease Study Trial Group Institute "
    "Committee Museum Church Wine Whisky Whiskey Scotch House Building Bridge"
)
_NEVER_IN_A_NAME = frozenset(_OTHER_WORDS.split())


def find_chinese_names(text: str) -> list[Offsets]:
    """Find Chinese names beside an age, or in a form beside a sex; the age is no part of it."""
    found: list[Offsets] = []
    for begin, stop in _around((match.span() for match in _HAN_AGES.finditer(text)), len(text), _HAN_CHARS):
        found += _before_sex_and_age(text, begin, stop)
        for pattern in (_ANNOUNCED, _FIELDS, _BEGINS_A_CLAUSE):
            found += [match.span(1) for match in pattern.finditer(text, begin, stop) if match[1] not in _NOT_NAMES]
    return without_overlaps(found)


def find_english_names(text: str) -> list[Offsets]:
    """Find names in Latin letters beside an age in English."""
    found: list[Offsets] = []
    for begin, stop in _around(_ENGLISH_AGES.places(text), len(text), _ENGLISH_CHARS):
        found += _english(text, begin, stop)
    return without_overlaps(found)


def _around(ages: Iterator[Offsets], size: int, chars: int) -> list[Offsets]:
    """Return the pieces of a text around all ages, so many characters to each side, those that touch as one."""
    pieces: list[Offsets] = []
    for first, last in ages:
        start, end = max(0, first - chars), min(size, last + chars)
        if pieces and start <= pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


def _before_sex_and_age(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    for match in _SEX_AND_AGE.finditer(text, begin, stop):
        end = match.start()
        run = _HAN_BEFORE.match(text[max(0, end - 12) : end][::-1])
        if run is not None:
            span = _name_at_end(run[0][::-1], end)
            if span:
                yield span


def _name_at_end(run: str, end: int) -> Offsets | None:
    """Return the offsets of the name that ends a run of Chinese characters, the longest first."""
    whole = _TITLED.search(run) or _DOTTED.search(run)
    if whole:
        return end - len(whole[0]), end
    for size in (4, 3, 2):
        tail = run[-size:]
        if len(tail) == size and _NAME_ONLY.fullmatch(tail) and tail not in _NOT_NAMES and tail[-2:] not in _NOT_NAMES:
            return end - size, end
    return None


def _english(text: str, begin: int, stop: int) -> Iterator[Offsets]:
    for pattern in (_ENGLISH, _AGE_FIRST, _FIELDS_EN):
        for match in pattern.finditer(text, begin, stop):
            groups = match.groupdict()
            group = "titled" if groups.get("titled") else "bare"
            start, end = match.span(group)
            words = text[start:end].split(" ")
            while words and (words[0] in _NOT_A_FIRST_WORD or words[0].endswith("'s")):
                start += len(words.pop(0)) + 1
            if not words or (len(words) < 2 and group == "bare") or not _NEVER_IN_A_NAME.isdisjoint(words):
                continue
            yield start, end
