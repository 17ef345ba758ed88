"""Words and sentence frames of the synthetic rows (data_rows.py)."""


def _words(text: str) -> list[str]:
    return text.split()


ENGLISH = {
    "n": _words(
        "account invoice payment order parcel refund contract policy report meeting server database backup "
        "network password browser printer laptop battery charger screen camera sensor engine gearbox brake tyre "
        "kitchen recipe flour butter garlic onion tomato pepper chicken river mountain forest harbour village "
        "station airport museum library teacher student lesson essay exam theory formula proof experiment sample "
        "cell protein enzyme virus vaccine symptom fever cough headache rash patient doctor nurse clinic dose "
        "tablet allergy surgery recovery insulin pressure heart kidney liver muscle tendon budget tax salary "
        "pension loan mortgage interest deposit share bond market supplier customer manager engineer designer "
        "lawyer judge witness statute appeal tenant landlord lease garden seedling fertiliser drainage harvest "
        "tractor warehouse shelf label barcode scanner pipeline cluster container queue cache index schema "
        "migration token gateway certificate firewall dashboard novel chapter poem melody rhythm guitar "
        "orchestra stage curtain costume painter canvas sculpture gallery planet orbit telescope comet gravity "
        "rocket satellite climate glacier drought monsoon volcano earthquake passport visa luggage itinerary "
        "hostel ferry timetable platform bridge tunnel highway bicycle helmet"
    ),
    "v": _words(
        "checks updates replaces explains measures describes compares confirms cancels schedules repairs cleans "
        "tests monitors reviews approves rejects reports records restores protects reduces increases delays "
        "improves limits requires supports blocks triggers affects follows precedes contains releases absorbs "
        "attracts controls balances drains fills opens closes locks copies moves signs prints ships returns "
        "charges covers insures teaches trains inspects weighs sorts counts filters encrypts compiles deploys "
        "observes predicts"
    ),
    "a": _words(
        "new old local remote early late quick slow quiet loud bright dark heavy light simple complex annual "
        "weekly daily digital manual automatic public private internal external primary secondary acute chronic "
        "mild severe common rare cheap costly clean dusty fresh frozen warm cold narrow wide deep shallow stable "
        "fragile modern ancient urban rural legal financial medical technical electric mechanical organic "
        "chemical physical mental"
    ),
    "d": _words(
        "carefully quickly usually rarely often twice finally gradually directly remotely manually automatically "
        "overnight yesterday tomorrow monthly safely correctly partly entirely"
    ),
    "p": _words("before after during without near behind under across despite besides within towards"),
    "f": _words("3 5 7 12 15 18 24 30 45 48 60 72 90 120 150 240 365 500 750"),
}
ENGLISH_FRAMES = [
    ("The {} {} {} the {} {}.", "anvan"),
    ("The {} {} {} every {} and {} the {}.", "anvnvn"),
    ("After {} days the {} {} a {} {}.", "fnvan"),
    ("{} the {}, a {} {} {} the {}.", "pnanvn"),
    ("If the {} {} the {}, the {} {} it {}.", "nvnnvd"),
    ("Most people keep the {} {} the {} {} and the {}.", "npann"),
    ("It {} the {} {} because the {} is {}.", "vanna"),
    ("A {} {} costs about {} more than the {} {}.", "anfan"),
    ("Remember that the {} {} {} the {} {}.", "ndvan"),
    ("First the {} {} the {}; then the {} {} the {} {}.", "nvnnvan"),
]
ENGLISH_ASKS = [
    ("How does a {} {} affect the {} of the {}?", "annn"),
    ("Explain to a beginner why the {} {} {} the {}.", "anvn"),
    ("What should I do when my {} {} the {} {} the {}?", "nvnpn"),
    ("Write a short note about the {} {} and its {}.", "ann"),
    ("Summarise the following text about the {} and the {} {} in a few sentences.", "nan"),
    ("Please compare the {} {} with the {} {}.", "anan"),
    ("I have a {} {} since {} weeks. Is the {} {}?", "anfna"),
]
CHINESE = {
    "n": _words(
        "账户 发票 订单 包裹 合同 保单 会议 服务器 数据库 备份 网络 密码 浏览器 打印机 电池 屏幕 传感器 发动机 "
        "刹车 轮胎 厨房 面粉 黄油 大蒜 洋葱 番茄 辣椒 鸡肉 河流 山脉 森林 港口 村庄 车站 机场 博物馆 图书馆 老师 "
        "学生 课程 论文 考试 公式 实验 样本 细胞 蛋白质 病毒 疫苗 症状 发热 咳嗽 头痛 皮疹 患者 医生 护士 诊所 "
        "剂量 药片 过敏 手术 胰岛素 血压 心脏 肾脏 肝脏 肌肉 预算 税款 工资 养老金 贷款 利息 存款 股票 债券 市场 "
        "供应商 客户 经理 工程师 律师 法官 证人 法规 租户 房东 花园 种子 肥料 排水 拖拉机 仓库 货架 标签 条码 "
        "管道 容器 队列 缓存 索引 令牌 网关 证书 防火墙 小说 诗歌 旋律 吉他 乐团 舞台 画家 雕塑 行星 轨道 望远镜 "
        "彗星 火箭 卫星 气候 冰川 干旱 火山 地震 护照 签证 行李 行程 渡轮 时刻表 桥梁 隧道 公路 自行车 头盔 心肌 "
        "冠状动脉 肺炎 糖尿病 骨折 关节 神经 免疫 抗生素 化验单 处方 病历 挂号 门诊 住院 康复 营养 睡眠 运动 "
        "体重 血糖 胆固醇"
    ),
    "v": _words(
        "检查 更新 更换 解释 测量 描述 比较 确认 取消 安排 修理 清洁 测试 监控 审核 批准 拒绝 报告 记录 恢复 "
        "保护 降低 提高 延迟 改善 限制 需要 支持 阻止 触发 影响 包含 释放 吸收 吸引 控制 平衡 打开 关闭 锁定 "
        "复制 移动 签署 打印 发送 退回 承担 覆盖 培训 检验 称量 排序 统计 过滤 加密 部署 观察 预测 诊断 治疗 "
        "缓解 预防"
    ),
    "a": _words(
        "新的 旧的 本地 远程 早期 晚期 快速 缓慢 安静 明亮 沉重 轻便 简单 复杂 年度 每周 数字 手动 自动 公共 "
        "私人 内部 外部 急性 慢性 轻度 严重 常见 罕见 便宜 昂贵 干净 新鲜 冷冻 温暖 寒冷 狭窄 宽阔 稳定 脆弱 "
        "现代 古老 城市 农村 法律 财务 医学 技术 电动 机械"
    ),
    "d": _words("仔细 迅速 通常 很少 经常 最终 逐渐 直接 安全地 正确地 部分 完全 定期 立即 提前 随后"),
    "f": _words("2 3 5 7 10 14 20 28 30 45 60 90 100 180 365"),
}
CHINESE_FRAMES = [
    ("{}的{}会{}{}的{}。", "anvan"),
    ("{}{}{}{}，并且{}{}。", "ndvnvn"),
    ("{}天之后，{}{}了{}{}。", "fnvan"),
    ("如果{}{}{}，那么{}应当{}{}{}。", "nvnndvn"),
    ("大多数人把{}放在{}{}旁边。", "nan"),
    ("因为{}比较{}，所以要{}{}{}。", "nadvn"),
    ("{}{}大约比{}{}贵{}元。", "ananf"),
    ("首先{}{}，然后{}{}，最后{}{}。", "vnvnvn"),
    ("请注意，{}与{}都可能{}{}的{}。", "nnvan"),
]
CHINESE_ASKS = [
    ("{}的{}对{}有什么影响？", "ann"),
    ("请解释为什么{}{}会{}{}。", "anvn"),
    ("我的{}{}了{}，应该怎么办？", "nvn"),
    ("请用几句话总结下面关于{}和{}{}的内容。", "nan"),
    ("比较一下{}{}与{}{}的区别。", "anan"),
    ("{}出现{}{}已经{}天了，需要{}{}吗？", "nanfvn"),
]
CODE_NAMES = _words(
    "value item total count index name path user order price cache key node left right start end width height "
    "buffer line text word token score limit offset result config session client request response error status "
    "message queue batch row column table record field matrix vector weight rate delay timeout retry event "
    "handler state version"
)
CODE_VERBS = _words("get set load save parse build find merge split filter update remove check count send read write")
CODE_FRAMES = [
    "    {0} = {1}.get('{2}', {3})\n",
    "    if {0} > {3}:\n        raise ValueError(f'{2} {{{0}}} is above {3}')\n",
    "    for {0} in {1}:\n        {2}.append({0} * {3})\n",
    "    {0}, {1} = sorted(({1}, {2}), key=len)[:{3}]\n",
    "    with open({0}, encoding='utf-8') as {1}:\n        {2} = {1}.read({3})\n",
    "    {0} = [{1} for {1} in {2} if {1} is not None and {1} != {3}]\n",
    "    while {0} < len({1}):\n        {0} += {3}\n        {2} = {1}[{0} - 1]\n",
    "    # Keep at most {3} of the {0} that the {1} gave us.\n    {2} = {0}[:{3}]\n",
    "    try:\n        {0} = int({1})\n    except ValueError:\n        {0} = {3}  # the {2} is no number\n",
    "    {0} = max({1} - {2}, {3}) / {3}\n",
    "    self.{0} = {1} or {2}({3})\n",
    "    logger.info('{0} %s of {1} took %d ms', {2}, {3})\n",
]
CODE_ASKS = [
    "Write a Python function `{}` that takes {} and {} and returns the {}.",
    "What does the function `{}` do with the {} and the {}? Rewrite it so that it returns the {}.",
    "Fix the bug in `{}`: the {} is wrong when the {} is empty, and the {} is never checked.",
]
FAMILY_NAMES = _words("王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 胡 朱 高 林")
GIVEN_NAMES = _words("伟 芳 娜 敏 静 强 磊 军 洋 勇 艳 杰 涛 明 超 秀英 建国 晓东 志强 海燕")
FIRST_NAMES = _words("John Mary Peter Anna James Linda David Susan Robert Karen Thomas Laura Daniel Emma Paul Alice")
LAST_NAMES = _words("Smith Johnson Brown Miller Davis Wilson Moore Taylor Clark Lewis Walker Young Allen King")
