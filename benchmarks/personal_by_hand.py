"""Texts written by hand, with their personal data marked: [[kind|value]]. The hard and the ambiguous ones stand here.

Every value is invented. Some of what is marked is not found today, and some of what is found is not marked: the figures
of the labelled file shall say so.
"""

ENGLISH = """
I'm at [[phone|+1 (415) 555-0132]] or [[phone|415 555 0132]], and the office has [[phone|020 7946 0018]].
Numéro: [[phone|06 12 34 56 78]], ou le soir tél. [[phone|01 23 45 67 89]]. Tel: [[phone|0171/1234567]]
My mobile is [[phone|0412 345 678]], the landline [[phone|(02) 9876 5432]]; in Tokyo use [[phone|03-1234-5678]].
call [[phone|5550123]] now, or text [[phone|555-0199]] later
You can reach me at [[phone|4155550132]] until noon.
Whatsapp [[phone|+55 11 91234-5678]], Telegram [[phone|+7 916 123-45-67]]
The clinic in Mumbai: [[phone|+91 98765 43210]]; in Singapore [[phone|+65 6123 4567]].
ext. numbers: [[phone|(212) 555-0147 x123]] and [[phone|1-800-555-0199]]
tel:[[phone|+4915112345678]];isub=1
Expiry 12/29, number [[bank_card|4111-1111-1111-1111]], amex [[bank_card|3782 822463 10005]]
{"card": "[[bank_card|5555555555554444]]", "order": "8834567812345678"}
[[ip_address|192.168.1.1]]:8080 talks to [[ip_address|10.20.0.0]]/16, not to v1.2.3.4 or Chrome/120.0.6099.129
listening on [[ip_address|2001:db8::8a2e:370:7334]], [[ip_address|fe80::1ff:fe23:4567:890a]]%eth0; ::1; 12:30:45
std::vector<a::b> dead; beef::cafe; a::b
mac [[mac_address|001a.2b3c.4d5e]] [[mac_address|00-1A-2B-3C-4D-5E]] but 01-02-03-04-05-06 and 12:34:56
aws_secret_access_key = [[secret|wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY]]
{"api_key": "[[secret|a8f5f167f44f4964e6c998dee827110c]]", "password": "[[secret|hunter2]]", "type": "string"}
password: str = Field(...)  token: Optional[str] = None; secret_key = os.getenv("SECRET"); PASSWORD=$PW
token = jwt.encode(payload, key, algorithm="HS256"); key = "user:123:profile"; keyboard = "qwerty123456"
mysql://root:[[secret|Passw0rd]]@[[ip_address|10.0.0.5]]:3306/db https://example.com:8080/x@y
Authorization: Basic [[secret|dXNlcjpwYXNzd29yZA==]]
the pin is four digits and the passphrase is [[secret|correct-horse-battery-staple-42]]
my password is [[secret|letmein]]
[[name_with_age|John Smith]] is a 45-year-old man. The patient, [[name_with_age|Jane Doe]], 52F, is stable.
Mr. [[name_with_age|Brown]], aged 60, and [[name_with_age|Maria Garcia-Lopez]] (34 y.o. female) share a room.
[[name_with_age|Seán Ó Briain]], a 45-year-old man, and [[name_with_age|José Núñez]], 61, male
A 60-year-old man from New York. Dr. Lee saw a 45-year-old. At age 45 he retired.
In Table 2, 45 female patients; Group A, 30 male. Type 2 Diabetes, 45 years old. Blood Pressure, 60 y/o
[[name_with_age|li wei]], 30 years old, wrote in lower case
order 4111111111111111 shipped; timestamp 1700000000000; 1700000000; id=13812345678; uid 13812345678
0.13812345678 138123456789 13812345678.5 3.14159265358979 2024-01-15 12:30:45 2024/01/15-2024/02/20 20240115123045
+20240101 +10000000 points 1+13800000000 1998-2018 12345678-1234-1234-1234-123456789012
foo@bar git@github.com:org this@Main.context foo@2x.png @angular/core@1.2.3 and [[email|o'neil@ex.ie]]
mail [[email|user@example.co.uk]]. Or [[email|first.last+tag@sub.domain.museum]]!
john (at) example (dot) com is written out, [[email|JOHN@EXAMPLE.COM]] is not
[[secret|AKIAIOSFODNN7EXAMPLE]] sk-learn-something-very-long-name-here [[secret|sk-abc123def456ghi789jkl0]]
passport [[china_id|11010519491231002X]] is no passport but 110105194912310021 is nothing at all
x = 13900000000; y = x % 13812345678; arr[13812345678]; return 13812345678 * 2
isbn 9787111128069, ean 4006381333931, imei 490154203237518, vat DE123456789, iban DE89 3704 0044 0532 0130 00
score 415 555 0132, 415 555 0133; vector [415 555 0132]
Lot 2024-0412-345 expires 01-02-2026 12:30; room 0412-345; grant R01-CA-123456
"""

CHINESE = """
大阪[[phone|06-6123-4567]]；北京[[phone|(010)8888 6666]]；客服[[phone|400-810-1234]]
[[phone|(+86)13812345678]]；[[phone|0086 138 1234 5678]]；电话/微信:[[phone|13812345678]]/[[phone|13912345678]]
QQ邮箱[[email|123456789@qq.com]]，手机 [[phone|138 1234 5678]]。快递单号 13812345678
身份证 [[china_id|110105 19491231 002X]]，卡号[[bank_card|6222 0212 3456 7890 128]]
身份证号[[china_id|110101199003077380]]校验失败
老身份证号[[china_id|110105491231002]]，编号110105491231002
我的密码是[[secret|abc12345]]，登录名admin；密码：[[secret|123456]]；密码不能为空；密码：至少8位
患者[[name_with_age|李明]]，女，35岁。患者，男，56岁。李某某，男，40岁。[[name_with_age|王女士]]，52岁，女。
患儿[[name_with_age|张小宝]]，5个月，男。会诊：[[name_with_age|欧阳修远]]，男性，63岁
[[name_with_age|张三丰]]今年45岁；患者[[name_with_age|王五]]今年三十五岁；姓名：[[name_with_age|赵六]]，性别：女，年龄：29
本人男25岁；成年男性30岁；患者为老年男性，78岁；我爸男68岁；我朋友女 22岁；女儿今年8岁；儿子5岁男
大夫您好，我叫[[name_with_age|陈思远]]，今年31岁，男，最近总是失眠。
[[name_with_age|买买提·吐尔逊]]，男，50岁，维吾尔族
[[name_with_age|常春]]，男，66岁；[[name_with_age|高明]]，女，28岁；高热，男，3岁
时间2024年01月15日12时，金额13812345678元，共13812345678次，经度116.3974799123
手机号 [[phone|１３８-１２３４-５６７８]] 已停机
股票代码600519，成交13900000000股；QQ群 12345678；邮编100084；车次G1234
网址 https://example.com/a/13812345678.html 的图片 13812345678.jpg
服务器[[ip_address|10.8.0.6]]的版本号1.2.3.4，第3.2.1.4节
加微信[[phone|13700001234]]，V信同号；Tel[[phone|13600001234]]
公钥 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 可以公开
token：[[secret|8f14e45fceea167a5a36dedd4bea2543]]，secret 是个英文单词
二代证[[china_id|440305199003078673]]有效；订单440305199003078671无效
"""
