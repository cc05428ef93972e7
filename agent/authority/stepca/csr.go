package stepca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// request makes a certificate request in PEM for these names. A name is an IP
// address, a URI (it has a scheme), a mail address, or a DNS name, decided as
// step-ca decides it: the authority compares the four lists with its own.
func request(signer crypto.Signer, commonName string, sans []string) (string, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	for _, name := range sans {
		u, err := url.Parse(name)
		switch ip := net.ParseIP(name); {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case err == nil && u.Scheme != "":
			template.URIs = append(template.URIs, u)
		case strings.Contains(name, "@"):
			template.EmailAddresses = append(template.EmailAddresses, name)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return sign(signer, template)
}

// requestLike makes a request for the subject and names of a certificate.
func requestLike(signer crypto.Signer, leaf *x509.Certificate) (string, error) {
	return sign(signer, &x509.CertificateRequest{
		RawSubject: leaf.RawSubject, DNSNames: leaf.DNSNames, IPAddresses: leaf.IPAddresses,
		EmailAddresses: leaf.EmailAddresses, URIs: leaf.URIs,
	})
}

func sign(signer crypto.Signer, template *x509.CertificateRequest) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer)
	if err != nil {
		return "", fmt.Errorf("certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
