package jws

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"
)

// The examples of RFC 7515, appendices A.2 and A.3: somebody else's keys and
// signatures over a payload with line breaks in it.
const (
	vectorPayload = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"

	rsaN = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
	rsaD = "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ"
	rsaP = "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc"
	rsaQ = "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc"

	ecX = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	ecY = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"

	vectorRS256 = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	vectorES256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)

func number(t *testing.T, s string) *big.Int {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return new(big.Int).SetBytes(raw)
}

func vectorRSAKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number(t, rsaN), E: 65537},
		D:         number(t, rsaD),
		Primes:    []*big.Int{number(t, rsaP), number(t, rsaQ)},
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		t.Fatal(err)
	}
	return key
}

func vectorECKey(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	point := append([]byte{4}, number(t, ecX).FillBytes(make([]byte, 32))...)
	point = append(point, number(t, ecY).FillBytes(make([]byte, 32))...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSignatureOfRFC7515AppendixA2IsReproduced(t *testing.T) {
	got, err := signBytes(vectorRSAKey(t), RS256, []byte(`{"alg":"RS256"}`), []byte(vectorPayload))
	if err != nil {
		t.Fatal(err)
	}
	if got != vectorRS256 {
		t.Errorf("got  %s\nwant %s", got, vectorRS256)
	}
}

func TestSignaturesOfRFC7515Verify(t *testing.T) {
	for _, v := range []struct {
		alg, compact string
		key          any
	}{
		{RS256, vectorRS256, &vectorRSAKey(t).PublicKey},
		{ES256, vectorES256, vectorECKey(t)},
	} {
		token, err := Parse(v.compact, 0)
		if err != nil {
			t.Fatalf("%s: %v", v.alg, err)
		}
		if err := token.Verify(v.key, v.alg); err != nil {
			t.Errorf("%s: %v", v.alg, err)
		}
		var claims struct {
			Issuer  string `json:"iss"`
			Expires Time   `json:"exp"`
		}
		if err := token.Decode(&claims); err != nil || claims.Issuer != "joe" || claims.Expires.Unix() != 1300819380 {
			t.Errorf("%s: claims %+v, %v", v.alg, claims, err)
		}
	}
}

// RFC 7515 appendices A.1 (HMAC) and A.5 (none) are well-formed; they are refused by algorithm.
func TestAlgorithmsOfOtherAppendicesAreRefused(t *testing.T) {
	payload := strings.Split(vectorRS256, ".")[1]
	for _, head := range []string{`{"typ":"JWT","alg":"HS256"}`, `{"alg":"none"}`, `{"alg":"None"}`, `{"alg":"ES512"}`, `{"alg":"RS384"}`, `{"alg":""}`, `{}`} {
		compact := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + payload + ".AAAA"
		if _, err := Parse(compact, 0); err == nil {
			t.Errorf("%s was taken", head)
		}
	}
}
