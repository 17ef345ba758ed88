"""Forms of sentences, one a line: with {} for a value, or with nothing personal in them at all.

In the latter <d7> stands for seven digits, <x40> for as many hexadecimal digits, <n1-12> for a number between the two,
<n01-12> for one of two digits, <ms> and <s> for a time since 1970, <badcard> and <badid> for numbers that fail their
check.
"""

ENGLISH = {
    "email": r"""
Please write to {} before Friday.
Contact: {}, or come to the desk.
From: <{}>\nSubject: Results
{{"user": "{}", "active": true}}
Her address ({}) bounced twice.
mailto:{}
Send the X-ray to {}; copy nobody else.
I tried {}/support and it failed
""",
    "phone": r"""
Call {} after six.
My number is {}.
Phone: {}
Reach the ward at {} or ask reception.
Tel. {} (mornings)
{} is the number of the night nurse.
If symptoms return, ring {}, day or night.
"phone": "{}"
Fax {}; mail is slower.
""",
    "china_id": r"""
The ID number on the form is {}.
ID card no. {} was checked.
Resident identity: {}
{{"id_card": "{}"}}
passenger {} boarded
""",
    "bank_card": r"""
Charge it to {} please.
Card number: {}
My card {} was declined yesterday.
Paid with {}, exp 04/29.
The receipt shows {} and a total of $41.20.
"pan": "{}"
""",
    "ip_address": r"""
Login from {} at 03:12.
The host {} does not answer.
ssh admin@{}
Blocked {} after five failures.
inet {}/24 brd
Client address: {}.
ping {}
""",
    "mac_address": r"""
The printer has {} as its address.
ether {} txqueuelen 1000
MAC: {}
Device {} joined the network.
wake up {} please
""",
    "secret": r"""
export TOKEN={}
My key is {} and it does not work.
Authorization: Bearer {}
client = Client("{}")
curl -H 'X-Key: {}' https://api.example.com
the leaked credential {} was revoked
""",
    "name_with_age": r"""
{}, a 45-year-old man, came with chest pain.
{} (62 y/o F) has a history of asthma.
Patient: {}, 38 years old, no allergies.
We saw {}, aged 71, in March.
{} is a 29-year-old woman with fever.
Mrs. {}, 80 years old, fell at home.
A 54-year-old male named {} was admitted.
Name: {}  Age: 33  Sex: M
{}, 45, male, presents with cough.
Dear colleague, {}, a 7 year old boy, was seen today.
""",
}
CHINESE = {
    "email": r"""
请把报告发到{}，谢谢。
我的邮箱是{}
联系邮箱：{}（工作日回复）
收件人{}已读。
有问题请写信给{}。
发送至“{}”即可
""",
    "phone": r"""
请拨打{}联系我。
手机号：{}
家属电话{}，随时可以打。
我的号码是{}，微信同号。
联系人王医生（{}）
加微信{}咨询
电话:{}，地址：朝阳区
如有不适请致电{}。
{}这个号码打不通
Tel{}
""",
    "china_id": r"""
身份证号码：{}
身份证{}已核实。
证件号为{}，请登记。
患者身份证号{}，医保卡已带。
公民身份号码是{}
号码{}属于本人
""",
    "bank_card": r"""
请转到银行卡{}。
卡号：{}
我的工资卡是{}，开户行在深圳。
退款到{}就可以了
信用卡{}被盗刷了
尾号不对，完整卡号为{}
""",
    "ip_address": r"""
服务器地址是{}。
从{}登录失败
客户端IP：{}，已封禁。
请ping一下{}看看
数据库部署在{}上
来源{}的请求太多
""",
    "mac_address": r"""
网卡地址为{}。
MAC地址：{}
设备{}已上线
请绑定{}到端口
打印机（{}）离线
""",
    "secret": r"""
我的密钥是{}，为什么报错？
令牌：{}
请不要泄露{}
配置里写了{}，已经作废。
curl -H 'Authorization: Bearer {}' 返回401
access_key：{}
""",
    "name_with_age": r"""
患者{}，男，45岁，因胸痛入院。
{}，女，32岁，已婚。
姓名：{} 性别：男 年龄：67岁
患者{}今年58岁，有高血压病史。
病人{}（女，24岁）咳嗽三天。
我叫{}，今年29岁，想咨询一下。
患儿{}，女，3岁，发热一天。
昨日收治{}，男，71岁，脑梗死。
{}（男 50岁）复查血糖。
患者{} 女性 41岁 主诉头晕。
""",
}
ENGLISH_PASSWORDS = r"""
password = "{}"
DB_PASSWORD={}
password: {}
The password is {}
passwd:{}
postgres://app:{}@db.example.com/main
"pwd": "{}",
"""
CHINESE_PASSWORDS = r"""
密码：{}
登录密码是{}，请尽快修改。
账号admin 密码:{}
口令为{}
"""
ENGLISH_KEYS = r"""
api_key = '{}'
client_secret: {}
AUTH_TOKEN={}
secret={}
"access_token": "{}"
key: {}
"""
KEYS = r"""
Here it is:\n{}\nKeep it safe.
私钥如下：\n{}\n请保管
"""
ENGLISH_NOTHING = r"""
Order number <d16> was shipped.
order id: 1<n3-9><d9>
Timestamp <ms> ms
ts=<s>
commit <x40>
sha256:<x64>
Upgrade to version <n1-12>.<n0-9>.<n0-30>.<n0-9> today.
v<n1-9>.<n0-20>.<n0-20>.<n0-9>
The price is $<n1-9>,<d3>,<d3>.00.
ISBN 978-<n0-9>-<d4>-<d4>-<n0-9>
ISBN 9787<d9>
x = 1<n3-9><d9> * 2
sleep(0.<d12>)
pi is 3.14159265358979<d3>
2024-<n01-12>-<n01-28> <n00-23>:<n00-59>:<n00-59>.<d6>
Card <badcard> was a typo.
UUID <x8>-<x4>-4<x3>-a<x3>-<x12>
The array has <n1-9><d6> elements.
std::vector<int> a; foo::bar::baz();
git clone git@github.com:org/repo.git
password = os.environ['DB_PASSWORD']
Enter your password: must be at least 8 characters
max_tokens=4096, temperature=0.7
token = get_token(user)
api_key = YOUR_API_KEY
The 45-year-old man was seen in New York.
In March, a 30-year-old woman presented with fever.
icon@2x.png is missing
@app.route('/') decorates it
listen 127.0.0.1:8080 and mask 255.255.255.0
bind 0.0.0.0
The ratio is <n10-99>:<n10-99>:<n10-99> and it starts at <n10-23>:<n10-59>:<n10-59>.
Part no. <d4>-<d4>-<d3>
call me at 5 or 6
chr1:<d8>-<d8>
SKU <d12>
doi:10.1016/j.cell.2020.<n10-12>.<d3>
for i in range(<d7>): pass
tracking 1Z<d16>
A<d11>B is the asset tag
<d5>-<d4> is a ZIP+4
Numbers: <n100-9999>, <n100-9999>, <n100-9999>, <n100-9999>, <n100-9999>, <n1000-9999>, <n100-999>
key = lambda row: row.name
primary key: customer_order_identifier_v2
Secret: the answer is love
section 1.2.3.4 of the standard
The Secret Token Foundation is a charity.
matrix [[<n100-999> <n100-999> <n1000-9999>], [<n100-999> <n100-999> <n1000-9999>]]
ID 11010519491231<d3>Z is malformed
"""
CHINESE_NOTHING = r"""
订单号<d16>已发货。
订单编号：1<n3-9><d9>
时间戳<ms>毫秒
快递单号：<d15>
2024年<n1-12>月<n1-28>日<n0-23>:<n10-59>
共计1<n3-9><d9>元
流水号<badid>校验失败
版本<n1-9>.<n0-9>.<n0-9>.<n0-9>已发布
国内生产总值达<n1-9><d11>元。
圆周率3.1415926535<d8>
图书编号9787<d9>
患者男性，45岁，因高血压入院。
高血压，男，45岁以上多见。
患者，女，32岁，无名氏。
老年男性，75岁，吸烟40年。
该病多见于成年女性，30岁后高发。
发票号码<d8>，金额<d5>.00元
密码长度不少于8位，请勿告诉他人。
请输入密码：
忘记密码怎么办？
令牌桶算法是什么？
ISBN：978-7-<d3>-<d5>-<n0-9>
第<n1-9>.<n1-9>.<n1-9>.<n1-9>节
编号：<d18>
银行卡号<badcard>输入有误
青年男性，20岁，体健。
黄疸，女，3天，新生儿科会诊。
比例为<n10-99>:<n10-99>:<n10-99>
股票代码600<d3>，成交量<d9>股
经度116.<d10>，纬度39.<d10>
今年45岁的人应该每年体检。
儿童3岁，男女均可发病。
文号〔2024〕<d3>号
车牌京A<d5>
患者住院号<d10>，床号12
批号<d10>，有效期至2026-01-01
"""
ENGLISH_PROSE = r"""
Explain in simple words what a beta blocker does and when a doctor would choose it over an ACE inhibitor.
The kidneys filter about 180 litres of plasma a day, of which 1.5 litres leave the body as urine.
Take one tablet twice daily after meals for 14 days; stop if a rash appears, and see a doctor within 24 hours.
In 2019 the committee reviewed 1,204 papers, published between 1998 and 2018, and kept 37 of them.
You can sort a list in place with list.sort(), which is stable and takes O(n log n) comparisons in the worst case.
The train leaves at 09:45 from platform 12, arrives at 13:20 and costs 48.50 euros in the second class.
def mean(values):\n    total = sum(values)\n    return total / len(values) if values else 0.0
SELECT name, count(*) FROM visits WHERE day >= '2024-01-01' GROUP BY name HAVING count(*) > 10 ORDER BY 2 DESC;
Blood pressure was 128/84 mmHg, pulse 72, temperature 36.8, and oxygen saturation 98% on room air.
A good answer names the mechanism, gives one example, and says where the analogy ends.
"""
CHINESE_PROSE = r"""
高血压患者应当低盐饮食，每天食盐不超过5克，并坚持规律服药，定期监测血压。
请用简单的语言解释一下什么是糖尿病，以及它和生活方式之间的关系。
心肌梗死的典型表现是胸骨后压榨样疼痛，持续超过20分钟，含服硝酸甘油不能缓解。
2023年全国居民人均可支配收入39218元，比上年名义增长6.3%。
建议先做血常规和胸部CT检查，白细胞计数为11.2×10^9/L，提示可能存在细菌感染。
本品为白色片剂，一次1片，一日3次，饭后服用，疗程7至14天，孕妇慎用。
这段代码的时间复杂度是O(n log n)，如果数据已经有序，可以进一步优化。
门诊时间为周一至周五8:00-17:30，地点在门诊楼三层302室。
儿童发热超过38.5℃时可以口服布洛芬混悬液，两次用药间隔至少6小时。
问：感冒和流感有什么区别？答：流感由流感病毒引起，起病急，全身症状重。
"""
