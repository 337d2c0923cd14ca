"""What the laboratory's kamailio answers in Python: the provisioning query ([MS-SIPREGE]) and the request for relay
credentials ([MS-AVEDGEA]), which are the time-limited ones of coturn. Settings are read from edge.json for every request,
so that a test changes them while the server runs."""

import base64
import hashlib
import hmac
import json
import time
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import KSR

MRAS_TYPE = "application/msrtc-media-relay-auth+xml"
MRAS_SPACE = "http://schemas.microsoft.com/2006/09/sip/mrasp"
PROVISION_TYPE = "application/vnd-microsoft-roaming-provisioning-v2+xml"
PROVISION_SPACE = "http://schemas.microsoft.com/2006/09/sip/provisiongrouplist-notification"
EVENT = "vnd-microsoft-provisioning-v2"
MRAS_URI = "sip:MRASLoc.lab.test@lab.test"


def settings():
    with open("@FOLDER@/edge.json") as file:
        return json.load(file)


def provision_document(mras):
    uri = "<mrasUri>%s</mrasUri>" % escape(MRAS_URI) if mras else ""
    return (
        '<provisionGroupList xmlns="%s"><provisionGroup name="ServerConfiguration">%s'
        "<ucPC2PCAVEncryption>SupportEncryption</ucPC2PCAVEncryption></provisionGroup></provisionGroupList>"
        % (PROVISION_SPACE, uri)
    )


def relay_xml(relay, location):
    ports = "".join(
        "<%s>%d</%s>" % (name, relay[name], name) for name in ("udpPort", "tcpPort") if relay.get(name)
    )
    return "<mediaRelay><location>%s</location><hostName>%s</hostName>%s</mediaRelay>" % (
        escape(location), escape(relay["hostName"]), ports)


class Edge:
    def child_init(self, rank):
        return 0

    # kamailio calls these by name.
    def credentials(self, _message):
        return self.guarded(self.answer_service)

    def provision(self, _message):
        return self.guarded(self.answer_subscribe)

    def guarded(self, answer):
        try:
            return answer()
        except Exception as error:  # the test must see that the laboratory is at fault
            KSR.err("edge.py: %r\n" % (error,))
            KSR.sl.send_reply(500, "Laboratory failure")
            return -1

    def answer_subscribe(self):
        said = settings()
        document = provision_document(said["mras"])
        KSR.hdr.append_to_reply("Contact: <sip:lab.test>\r\nExpires: 0\r\n")
        KSR.hdr.append_to_reply("subscription-state: terminated;expires=0\r\n")
        if said["piggyback"] and "ms-piggyback-first-notify" in KSR.pv.get("$mb"):
            KSR.hdr.append_to_reply("ms-piggyback-cseq: 1\r\nEvent: %s\r\n" % EVENT)
            KSR.textops.set_reply_body(document, PROVISION_TYPE)
            KSR.sl.send_reply(200, "OK")
            return 1
        KSR.sl.send_reply(200, "OK")
        self.notify(document)
        return 1

    def notify(self, document):
        """RFC 6665 section 4.2.2: within the dialog of the subscription, over the flow it came from."""
        get = KSR.pv.get
        headers = (
            "From: <%s>;tag=laboratory\r\nTo: <%s>;tag=%s\r\nCall-ID: %s\r\nCSeq: 1 NOTIFY\r\nEvent: %s\r\n"
            "Subscription-State: terminated;reason=timeout\r\nContact: <sip:lab.test>\r\nContent-Type: %s\r\n"
            % (get("$tu"), get("$fu"), get("$ft"), get("$ci"), EVENT, PROVISION_TYPE))
        target = get("$ct").split("<", 1)[-1].split(">", 1)[0]
        hop = "sip:%s:%s;transport=%s" % (get("$si"), get("$sp"), get("$proto"))
        socket = "%s:%s:%s" % (get("$proto"), get("$Ri"), get("$Rp"))
        KSR.jsonrpcs.execx(json.dumps({
            "jsonrpc": "2.0", "id": 1, "method": "tm.t_uac_start",
            "params": ["NOTIFY", target, hop, socket, headers, document]}))

    def answer_service(self):
        if MRAS_TYPE not in (KSR.pv.get("$cT") or "").lower():
            KSR.sl.send_reply(415, "Unsupported Media Type")
            return 1
        try:
            request = ET.fromstring(KSR.pv.get("$rb") or "")
        except ET.ParseError:
            KSR.sl.send_reply(400, "Malformed request")
            return 1
        if request.tag != "{%s}request" % MRAS_SPACE:
            KSR.sl.send_reply(400, "Malformed request")
            return 1
        status, reason, answers = self.credentials_for(request)
        body = '<?xml version="1.0"?>\r\n<response requestID=%s version="2.0" serverVersion="2.0" to=%s from=%s reasonPhrase=%s xmlns="%s">%s</response>' % (
            quoteattr(request.get("requestID", "")), quoteattr(request.get("to", "")),
            quoteattr(request.get("from", "")), quoteattr(reason), MRAS_SPACE, answers)
        KSR.textops.set_reply_body(body, MRAS_TYPE)
        KSR.sl.send_reply(status, reason)
        return 1

    def credentials_for(self, request):
        said = settings()
        user = KSR.pv.get("$au")
        answers = ""
        for wanted in request.findall("{%s}credentialsRequest" % MRAS_SPACE):
            text = lambda name: (wanted.findtext("{%s}%s" % (MRAS_SPACE, name)) or "").strip()
            if text("identity").lower() != "sip:%s@lab.test" % user.lower():
                return 403, "Forbidden", ""
            location = text("location") or "internet"
            asked = int(text("duration")) if text("duration").isdigit() else 480
            minutes = max(1, min(asked, (said["life_s"] + 59) // 60))
            name = "%d:%s" % (int(time.time()) + min(said["life_s"], minutes * 60), user)
            tag = hmac.new(said["secret"].encode(), name.encode(), hashlib.sha1).digest()
            relays = said["inner_relays"] if location == "intranet" else said["relays"]
            answers += (
                "<credentialsResponse credentialsRequestID=%s><credentials><username>%s</username><password>%s</password>"
                "<duration>%d</duration><realm>rtcmedia</realm></credentials><mediaRelayList>%s</mediaRelayList>"
                "</credentialsResponse>" % (
                    quoteattr(wanted.get("credentialsRequestID", "")), escape(name),
                    escape(base64.b64encode(tag).decode()), minutes,
                    "".join(relay_xml(relay, location) for relay in relays)))
        if not answers:
            return 400, "Request Malformed", ""
        return 200, "OK", answers


def mod_init():
    return Edge()
